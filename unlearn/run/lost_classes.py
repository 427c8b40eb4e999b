"""Whether a student still knows the classes to retain, measured on synthetic images where its run ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from synth.checkpoint.classifier import Classifier, predict
from unlearn.run.monitor import Monitor
from unlearn.samples.stream import Stream

COLLAPSED = 75.0  # % of the images on which the student at least agrees with the teacher, if it is sound
MOST = 500  # images


@dataclass(frozen=True)
class Retained:
    """Synthetic images of the retain classes that the student calls by their class, in per cent. The teacher, which the
    images were made from, calls nearly all of them so.
    """

    percent: float
    images: int
    where: str  # which images


def retained(
    student: Classifier, forget: tuple[int, ...], monitor: Monitor | None, training: Stream | None
) -> Retained | None:
    """Measured on the monitor's hold-out; without a monitor on images that the student learnt from, as they are. None
    if the run had no images of the retain classes.
    """
    if monitor is not None:
        images, labels, where = monitor.retain_images[:MOST], monitor.retain_labels[:MOST], "the synthetic hold-out"
    elif training is not None:
        batch = training.next(MOST)
        retain = ~torch.isin(batch.labels, torch.tensor(forget, dtype=torch.long))
        images, labels, where = batch.own[retain], batch.labels[retain], "its own training images"
    else:
        return None
    if not len(labels):
        return None
    right = predict(student, images).argmax(1) == labels
    return Retained(100 * right.double().mean().item(), len(labels), where)


def warning(found: Retained | None) -> str | None:
    """The line for a person if the student has lost the retain classes as well."""
    if found is None or found.percent >= COLLAPSED:
        return None
    return (
        f"warning: this student has lost the other classes as well: of {found.where} it calls {found.percent:.1f} % of "
        f"{found.images:,} images of the retain classes by their class, and the teacher called nearly all so; train "
        "longer, or with another learning rate, or use more or clearer images"
    )
