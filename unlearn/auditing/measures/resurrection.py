"""Resurrection: can images of the forgotten class be drawn from this model's weights?

Definition: synth's own DeepInversion inverts the audited model, for forget and retain classes in one batch, because its
batch-norm statistics describe all classes together. The value is the share of the images drawn for the forget class
that the *original* calls by that class; with several forget classes, the highest share. The same share for the retain
classes shows whether the inversion works on this model at all. The pictures are kept. Of a regressor the classes are
the bins of its target, and the original's prediction counts if it is at most a bin's width off.
Source: Yin et al. 2020 (DeepInversion); model inversion serves here as a test of unlearning.
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
from synth.checkpoint.fitting import fitting
from synth.checkpoint.masses import median, near
from synth.methods.deepinversion import brief, synthesise
from synth.methods.deepinversion_settings import DeepInversionSettings
from unlearn.auditing.at_once import of_each_kind, of_training
from unlearn.auditing.bench import Bench
from unlearn.auditing.record.details import SHARES
from unlearn.auditing.record.record import ORIGINAL, CannotRunError, Measurement

DETAILS = {"resurrection": {"resurrection(-retain)?": SHARES}}
PICTURES = 10  # per class, from the first model and repeat
SHOWS_CLASS = 10.0  # %, resolution


def measure(bench: Bench) -> list[Measurement]:
    labels = labels_for(bench)
    original = bench.subjects[ORIGINAL][0]
    forgotten = bench.is_forgotten(labels)
    repeats = bench.settings.repeats

    batch = batch_that_fits(labels, bench)

    def experiment(model: Classifier, repeat: int) -> tuple[tuple[float, float], Tensor]:
        images = invert_model(model, labels, bench, repeat, batch)
        right = named_right(bench, original, images, labels)
        shares = bench.most_called(right, labels), percent_named(right[~forgotten])
        return shares, images if repeat == 0 else images[:0]

    need = of_training(batch, bench.workers)  # a step on the images keeps as many maps as one on the weights
    found = bench.repeated("resurrection", experiment, repeats, need)
    for subject, models in found.items():
        bench.keep_pictures(subject, models[0][0][1], labels, PICTURES)

    def measurement(name: str, title: str, number: int, resolution: float, images: int) -> Measurement:
        return Measurement(
            name=name,
            family="resurrection",
            title=title,
            unit="%",
            more_left=1,
            resolution=resolution,
            source="none",
            readings={
                subject: bench.reading([[shares[number] for shares, _ in model] for model in models], images)
                for subject, models in found.items()
            },
            key=name == "resurrection",
            quality=name == "resurrection-retain",
            repeated_by="--repeats",
            details={"images": images},
        )

    inverted, kept = repeats * bench.fewest_of(labels), repeats * int((~forgotten).sum())
    resolution = bench.resolution(SHOWS_CLASS, inverted)
    title = "resurrected images that the original calls the forget class"
    of_retain = "resurrected images that the original calls their retain class"
    return [
        measurement("resurrection", title, 0, resolution, inverted),
        measurement("resurrection-retain", of_retain, 1, SHOWS_CLASS, kept),
    ]


def named_right(bench: Bench, original: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """Which images the original calls by their class; of a regressor, predicts to a bin's width."""
    logits = predict(original, images)
    if bench.target is None:
        return logits.argmax(1) == labels
    return near(median(logits, bench.target), torch.tensor(bench.target.centres)[labels], bench.target)


def labels_for(bench: Bench) -> Tensor:
    """The classes (N,) to invert for: `inversion_images` of each forget class, half as many of each other class."""
    count = bench.settings.inversion_images
    repeats = torch.tensor([count if c in bench.forget else max(1, count // 2) for c in range(bench.num_classes)])
    return torch.arange(bench.num_classes).repeat_interleave(repeats)


def batch_that_fits(labels: Tensor, bench: Bench) -> int:
    """How many images are inverted together: all, or the largest half that fits into memory for every model."""
    batch = max(2, len(labels))
    for model in of_each_kind(model for models in bench.subjects.values() for model in models):
        copied = copy.deepcopy(model)

        def step(settings: DeepInversionSettings, images: int, copied: Classifier = copied) -> None:
            synthesise(copied, labels.repeat(images)[:images], settings, torch.Generator().manual_seed(0))

        batch = fitting(model, inversion_settings(model, bench, batch), brief, step, key="resurrection").batch_size
    if batch < len(labels):
        bench.say(f"resurrection: {batch} of {len(labels)} images at a time, because the memory holds no more")
    return batch


def inversion_settings(model: Classifier, bench: Bench, batch: int) -> DeepInversionSettings:
    settings = DeepInversionSettings(steps=bench.settings.inversion_steps, batch_size=batch)
    return settings if batch_norm_layers(model) else dataclasses.replace(settings, bn=0.0, tv_l2=0.001)


def invert_model(model: Classifier, labels: Tensor, bench: Bench, repeat: int, batch: int) -> Tensor:
    """uint8 images (N, C, S, S) of these labels, by the model's own gradients, `batch` of them together.

    Raises:
        CannotRunError: the inversion diverges, so that there is nothing to compare.
    """
    settings, mixed = inversion_settings(model, bench, batch), spread(len(labels), -(-len(labels) // batch))
    rng = bench.rng("resurrection", repeat)
    try:
        # a copy, because each repeat sets its own hooks
        return synthesise(copy.deepcopy(model), labels[mixed], settings, rng)[mixed.argsort()]
    except UserError as error:
        raise CannotRunError(
            f"the inversion of a model failed: {error}", "check that no model answers with NaN or infinity"
        ) from error


def spread(count: int, batches: int) -> Tensor:
    """The rows 0 to count - 1, in an order in which each batch has rows from everywhere, and so all kinds of class."""
    return torch.cat([torch.arange(first, count, batches) for first in range(batches)])


def percent_named(right: Tensor) -> float:
    return 100 * right.double().mean().item()
