"""Whether a student still knows the classes to retain, measured on synthetic images where its run ends."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from synth.checkpoint.classifier import Classifier, predict
from unlearn.run.monitor import Monitor
from unlearn.samples.stream import Stream

COLLAPSED = 75.0  # % of the images on which the student at least agrees with the teacher, if it is sound
MOST = 500  # images
SURE = 0.9  # the teacher's confidence; a healthy student agrees on nearly all such images, however unclear the others


@dataclass(frozen=True)
class Retained:
    """Synthetic images of the retain classes, of which the teacher is sure, that the student calls as the teacher does,
    in per cent.
    """

    percent: float
    images: int
    where: str  # which images


def retained(
    student: Classifier, forget: tuple[int, ...], monitor: Monitor | None, training: Stream | None
) -> Retained | None:
    """Measured on the monitor's hold-out; without a monitor on views that the student learnt from. None if there are no
    such images.
    """
    if monitor is not None:
        images, called, where = monitor.retain_images[:MOST], monitor.retain_labels[:MOST], "the synthetic hold-out"
    elif training is not None:
        batch = training.next(MOST)
        confidence, called = batch.logits.softmax(1).max(1)
        forgotten = torch.tensor(forget, dtype=torch.long)
        rows = (confidence >= SURE) & ~torch.isin(batch.labels, forgotten) & ~torch.isin(called, forgotten)
        images, called, where = batch.views[rows], called[rows], "views of its own training images"
    else:
        return None
    if not len(called):
        return None
    right = predict(student, images).argmax(1) == called
    return Retained(100 * right.double().mean().item(), len(called), where)


def warning(found: Retained | None) -> str | None:
    """The line for a person if the student has lost the retain classes as well."""
    if found is None or found.percent >= COLLAPSED:
        return None
    return (
        f"warning: this student has lost the other classes as well: of {found.where} it calls {found.percent:.1f} % of "
        f"{found.images:,} of the retain classes, of which the teacher is sure, as the teacher does; train "
        "longer, or with another learning rate, or use more or clearer images"
    )
