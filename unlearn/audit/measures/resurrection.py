"""Resurrection: images of the forgotten class made from this model, and named by the original.

Definition: synth's own DeepInversion inverts the audited model, for forget and retain classes in one batch, as its batch-norm
statistics want it; the value is the share of the images made for the forget class that the *original* calls by it, of several
classes the highest. The same share of
the retain classes says whether the inversion works on this model at all. The pictures are kept.
Source: model inversion as a test of unlearning, by Yin et al. 2020 (DeepInversion).
Cost: subjects x repeats inversions of `inversion_steps` steps.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor

from synth.basics.errors import UserError
from synth.checkpoint.batch_norm import batch_norm_layers
from synth.checkpoint.classifier import Classifier, predict
from synth.methods.deepinversion import DeepInversionSettings, synthesise
from unlearn.audit.bench import Bench
from unlearn.audit.record.record import ORIGINAL, CannotRunError, Measurement

PICTURES = 10  # of each class, of the first model and repeat


def measure(bench: Bench) -> list[Measurement]:
    labels = labels_for(bench)
    original = bench.subjects[ORIGINAL][0]
    forgotten = bench.is_forgotten(labels)

    def experiment(model: Classifier, repeat: int) -> tuple[tuple[float, float], Tensor]:
        images = invert(model, labels, bench, repeat)
        right = predict(original, images).argmax(1) == labels
        return (bench.most_called(right, labels), percent(right[~forgotten])), images if repeat == 0 else images[:0]

    made = bench.repeated("resurrection", experiment, bench.settings.repeats)
    for subject, models in made.items():
        bench.keep_pictures(subject, models[0][0][1], labels, PICTURES)
    repeats = bench.settings.repeats
    inverted, kept = repeats * bench.fewest_of(labels), repeats * int((~forgotten).sum())
    names = (
        (
            "resurrection",
            "resurrected images that the original calls the forget class",
            bench.resolution(10.0, inverted),
            False,
            inverted,
        ),
        ("resurrection-retain", "resurrected images that the original calls their retain class", 10.0, True, kept),
    )
    return [
        Measurement(
            name=name, title=title, unit="%", more_left=1, resolution=resolution, source="none", quality=quality,
            details={"images": images},
            readings={
                subject: bench.reading([[shares[number] for shares, _ in model] for model in models], images)
                for subject, models in made.items()
            },
        )
        for number, (name, title, resolution, quality, images) in enumerate(names)
    ]  # fmt: skip


def labels_for(bench: Bench) -> Tensor:
    """The classes to invert for: `inversion_images` of each forget class, half as many of each other one."""
    count = bench.settings.inversion_images
    repeats = torch.tensor([count if c in bench.forget else max(1, count // 2) for c in range(bench.num_classes)])
    return torch.arange(bench.num_classes).repeat_interleave(repeats)


def invert(model: Classifier, labels: Tensor, bench: Bench, repeat: int) -> Tensor:
    """uint8 images (N, C, S, S) of these labels, by the model's own gradients."""
    settings = DeepInversionSettings(steps=bench.settings.inversion_steps, batch_size=max(2, len(labels)))
    if not batch_norm_layers(model):
        settings = dataclasses.replace(settings, bn=0.0, tv_l2=0.001)
    generator = bench.generator("resurrection", repeat)
    try:
        return synthesise(copy.deepcopy(model), labels, settings, generator)  # a copy: its hooks are this repeat's own
    except UserError as error:  # a model whose inversion diverges gives nothing to compare
        raise CannotRunError(
            f"the inversion of a model failed: {error}", "see that no model answers with NaN or infinity"
        ) from error


def percent(right: Tensor) -> float:
    return 100 * right.double().mean().item()
