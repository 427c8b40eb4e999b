"""What a classifier gets right on real test images: the accuracy pair, per class, and the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synth.errors import UsageError
from synth.teacher import Classifier, predict
from unlearn.data import LabelledImages


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in per cent. `confusion[t][p]` counts images of class t that were called p."""

    retain: float
    forget: float | None  # None where no image of a forget class was given
    per_class: list[float | None]
    confusion: list[list[int]]
    images: int


def evaluate(model: Classifier, data: LabelledImages, forget: tuple[int, ...]) -> Evaluation:
    """Accuracies are means over images, of the retain classes and of the forget classes.

    Raises:
        UsageError: there is no image of a retain class.
    """
    predicted = predict(model, data.images).argmax(1)
    confusion = confusion_matrix(data.labels, predicted, model.card.num_classes)
    right, seen = confusion.diagonal(), confusion.sum(1)
    forgotten = torch.zeros(model.card.num_classes, dtype=torch.bool)
    forgotten[list(forget)] = True
    retain = percent(right[~forgotten].sum(), seen[~forgotten].sum())
    if retain is None:
        raise UsageError("the data has no test image of a class to retain: name data that has some")
    return Evaluation(
        retain=retain,
        forget=percent(right[forgotten].sum(), seen[forgotten].sum()),
        per_class=[percent(r, n) for r, n in zip(right, seen, strict=True)],
        confusion=confusion.tolist(),
        images=len(data),
    )


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Counts (K, K), true class by predicted class."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def percent(right: Tensor, seen: Tensor) -> float | None:
    return None if seen.item() == 0 else 100.0 * right.item() / seen.item()
