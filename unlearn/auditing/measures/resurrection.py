"""Resurrection: can images of the forgotten class be drawn from this model's weights?

Definition: synth's own DeepInversion inverts the audited model, for forget and retain classes in one batch, because its
batch-norm statistics describe all classes together. The *original* names the images.

advantage  The share of the images drawn for the forget class that the original calls by that class, minus the share of
           the images drawn for the retain classes that it calls so. A network may call by one class whatever it does
           not know; the share alone then accuses a random network too. With several forget classes, the highest.
called     The first of the two shares, of the same class. It is shown but not judged.
others     The second. It is shown but not judged.
retain     The share of the images drawn for the retain classes that the original calls by their class: whether the
           inversion works on this model at all.

The pictures are kept. Of a regressor the classes are the bins of its target, and the original's prediction counts if it
is at most a bin's width off; the shares are means over the bins of the range.
Source: Yin et al. 2020 (DeepInversion); model inversion serves here as a test of unlearning.
Cost: subjects x repeats inversions of `inversion_steps` steps.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from statistics import fmean

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
from unlearn.auditing.record.details import COUNT, IMAGES, NOTHING, SHARES, details
from unlearn.auditing.record.record import ORIGINAL, CannotRunError, Measurement

# With the batch where not all images were inverted together.
ADVANTAGE = {"anyOf": [NOTHING, details(batch=COUNT)]}
OF_EACH = {"anyOf": [SHARES, details(images=IMAGES, batch=COUNT)]}
DETAILS = {"resurrection": {"resurrection-advantage": ADVANTAGE, "resurrection(-others|-retain)?": OF_EACH}}
MOST_OTHERS = 200  # images of the retain classes together; with 20 images per forget class, those of 20 classes
PICTURES = 10  # per class, from the first model and repeat
SHOWS_CLASS = 10.0  # %, resolution


def measure(bench: Bench) -> list[Measurement]:
    labels = labels_for(bench)
    original = bench.subjects[ORIGINAL][0]
    repeats = bench.settings.repeats

    batch = batch_that_fits(labels, bench)

    def experiment(model: Classifier, repeat: int) -> tuple[Tensor, Tensor]:
        images = invert_model(model, labels, bench, repeat, batch)
        return said_of(images, original, bench), images if repeat == 0 else images[:0]

    need = of_training(batch, bench.workers)  # a step on the images keeps as many maps as one on the weights
    whole = batch >= len(labels)  # batch norm makes images depend on those beside them: other batches, other images
    found = bench.repeated("inversion" if whole else f"inversion-{batch}", experiment, repeats, need)
    for subject, models in found.items():
        bench.keep_pictures(subject, models[0][0][1], labels, PICTURES)
    shares = {
        subject: [[shares_of(said, labels, bench) for said, _ in model] for model in models]
        for subject, models in found.items()
    }

    def measurement(part: str, title: str, resolution: float, images: int | None = None) -> Measurement:
        readings = {
            subject: bench.reading([[getattr(each, part) for each in model] for model in models], images)
            for subject, models in shares.items()
        }
        return Measurement(
            name="resurrection" if part == "called" else f"resurrection-{part}",
            family="resurrection",
            title=title,
            unit="points" if part == "advantage" else "%",
            more_left=1,
            resolution=resolution,
            source="none",
            readings=readings,
            key=part == "advantage",
            quality=part != "advantage",
            repeated_by="--repeats",
            details={**({} if images is None else {"images": images}), **({} if whole else {"batch": batch})},
        )

    inverted, kept = repeats * bench.fewest_of(labels), repeats * int((~bench.is_forgotten(labels)).sum())
    resolution = bench.resolution(SHOWS_CLASS, inverted)
    title = "resurrected images that the original calls the forget class"
    of_others = "images resurrected for other classes that the original calls the forget class"
    of_retain = "resurrected images that the original calls their retain class"
    return [
        measurement("advantage", f"{title}, minus others that it calls so", resolution),
        measurement("called", title, resolution, inverted),
        measurement("others", of_others, SHOWS_CLASS, kept),
        measurement("retain", of_retain, SHOWS_CLASS, kept),
    ]


@dataclass(frozen=True)
class Shares:
    """Shares of resurrected images, in %: those that the original calls the forget class, of the images drawn for it
    and of the others, and those that it calls by their retain class.
    """

    called: float
    others: float
    retain: float

    @property
    def advantage(self) -> float:
        return self.called - self.others


def shares_of(said: Tensor, labels: Tensor, bench: Bench) -> Shares:
    """The shares of images (N,) that were drawn for `labels` and that the original answered with `said`.

    Of several forget classes the one with the largest advantage counts; of a range, the mean of its bins.
    """
    forgotten = bench.is_forgotten(labels)
    of_others, of_retain = said[~forgotten], percent(is_called(said[~forgotten], labels[~forgotten], bench))
    found = []
    for c in labels[forgotten].unique():
        called, others = (percent(is_called(answers, c, bench)) for answers in (said[labels == c], of_others))
        found.append(Shares(called, others, of_retain))
    if bench.target is not None:
        return Shares(fmean(each.called for each in found), fmean(each.others for each in found), of_retain)
    return max(found, key=lambda each: each.advantage)


def said_of(images: Tensor, original: Classifier, bench: Bench) -> Tensor:
    """What the original says of each image (N,): the class, or the number that it predicts."""
    logits = predict(original, images)
    return logits.argmax(1) if bench.target is None else median(logits, bench.target)


def is_called(said: Tensor, wanted: Tensor, bench: Bench) -> Tensor:
    """Which answers are the wanted class; of a regressor, which are at most a bin's width off that bin."""
    if bench.target is None:
        return said == wanted
    return near(said, torch.tensor(bench.target.centres)[wanted], bench.target)


def labels_for(bench: Bench) -> Tensor:
    """The classes (N,) to invert for: `inversion_images` of each forget class, and half as many of each other class,
    but at most 200 of these together, spread over the classes.
    """
    count, others = bench.settings.inversion_images, bench.retain
    each = max(1, min(count // 2, MOST_OTHERS // len(others)))
    shown = min(len(others), MOST_OTHERS // each)
    repeats = torch.zeros(bench.num_classes, dtype=torch.int64)
    repeats[[others[k * len(others) // shown] for k in range(shown)]] = each
    repeats[list(bench.forget)] = count
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


def percent(right: Tensor) -> float:
    return 100 * right.double().mean().item()
