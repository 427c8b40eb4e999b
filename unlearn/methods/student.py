"""The student's network and card, and the check of the forget classes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from synth.basics.errors import UsageError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.class_choice import Classes
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.range_choice import choose
from synth.checkpoint.wiring import Wiring
from synth.shards.index import RunCard
from unlearn.methods.method import Inputs


def copy_of(teacher: Classifier, inputs: Inputs) -> Classifier:
    """A network with the teacher's weights and the student's card."""
    return Classifier(copy.deepcopy(teacher.net), inputs.card).to(inputs.device).eval()


def teacher_card(run: RunCard) -> ModelCard:
    """The card of the teacher that a run of shards was made from, as far as the run knows it."""
    return ModelCard(
        architecture=run.architecture,
        width=run.width,
        class_names=run.class_names,
        input_shape=run.image_shape,
        mean=run.mean,
        std=run.std,
        wiring=run.wiring,
        target=run.target,
    )


def fresh_card(teacher: ModelCard) -> ModelCard:
    """The teacher's card for a network with random weights. The outputs of an imported regressor may be in any unit."""
    return dataclasses.replace(teacher, target=teacher.target and teacher.target.standardised)


def student_card(
    teacher: ModelCard, architecture: str | None, width: float | None, training: Mapping[str, Any]
) -> ModelCard:
    """The student's card: the teacher's shape, classes and normalisation.

    The architecture and the width are the teacher's unless they are given. A width belongs to its architecture: another
    architecture without a width has width 1.

    Args:
        training: how the student is made, as the checkpoint records it.
    """
    same = architecture in (None, teacher.architecture)
    return dataclasses.replace(
        teacher,
        architecture=architecture or teacher.architecture,
        width=width or (teacher.width if same else 1.0),
        training=training,
        wiring=teacher.wiring if same else Wiring(),
        origin={},
    )


def forget_classes(asked: Classes, teacher: ModelCard) -> tuple[int, ...]:
    """The numbers of the classes to forget, or of the bins of a regressor's range.

    Raises UsageError if the teacher has no such class or range, or if nothing is left to retain.
    """
    forget = choose(asked, teacher, "forget class")
    if len(forget) == teacher.num_classes:
        raise UsageError("every class is to be forgotten: leave at least one class to retain")
    return forget
