"""The student's network and card, and the check of the forget classes."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

from synth.basics.errors import UsageError
from synth.checkpoint.card import ModelCard, check_classes
from synth.checkpoint.classifier import Classifier
from synth.shards.index import RunCard
from unlearn.methods.distill import DistillSettings
from unlearn.methods.method import Inputs


def copy_of(teacher: Classifier, inputs: Inputs) -> Classifier:
    """A network of the student's card with the teacher's weights."""
    return Classifier(copy.deepcopy(teacher.net), inputs.card).to(inputs.device).eval()


def student_card(
    run: RunCard,
    forget: tuple[int, ...],
    settings: DistillSettings,
    seed: int,
    architecture: str | None,
    width: float | None,
) -> ModelCard:
    """The student's card: the teacher's shape and normalisation, and an architecture of its own where one is named."""
    return ModelCard(
        **network_of(run, architecture, width),
        class_names=run.class_names,
        input_shape=run.image_shape,
        mean=run.mean,
        std=run.std,
        training={
            "method": "distill",
            "forget": list(forget),
            "teacher_sha256": run.teacher_sha256,
            "seed": seed,
            "settings": dataclasses.asdict(settings),
        },
    )


def network_of(teacher: RunCard | ModelCard, architecture: str | None, width: float | None) -> dict[str, Any]:
    """The student's architecture and width: the teacher's where neither is named. A width goes with its architecture."""
    same = architecture in (None, teacher.architecture)
    return {
        "architecture": architecture or teacher.architecture,
        "width": width or (teacher.width if same else 1.0),
    }


def check_forget(forget: tuple[int, ...], run: RunCard | ModelCard) -> None:
    """Raise UsageError where the forget classes are not the teacher's, or all of them."""
    check_classes(forget, run.num_classes, "forget class")
    if len(set(forget) & set(range(run.num_classes))) == run.num_classes:
        raise UsageError("every class is to be forgotten: leave at least one to retain")
