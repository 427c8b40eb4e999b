"""What a classifier gets right on real test images: the accuracy pair, per class, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from synth.basics.errors import UsageError
from synth.checkpoint.card import check_classes
from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.file import load_checkpoint
from unlearn.data import DataSource, LabelledImages, check_data


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in per cent. `confusion[t][p]` counts images of class t that were called p."""

    retain: float
    forget: float | None  # None where no image of a forget class was given
    per_class: list[float | None]
    confusion: list[list[int]]
    images: int


def evaluate_model(model: Classifier, data: LabelledImages, forget: tuple[int, ...]) -> Evaluation:
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


def evaluate(
    checkpoints: Mapping[str, Path],
    source: DataSource,
    forget: tuple[int, ...],
    trusted_architecture: str | None,
    device: str,
    images: LabelledImages | None = None,
) -> tuple[dict[str, Evaluation], tuple[str, ...]]:
    """Each named checkpoint's evaluation on the same test images, loaded here unless given, and the class names."""
    models = {name: load_checkpoint(path, trusted_architecture).to(device) for name, path in checkpoints.items()}
    images = images or source.load("test")
    data = {n: check_data(model.card, images, checkpoints[n], source.name, forget) for n, model in models.items()}
    orders = {d.class_names: checkpoints[n] for n, d in data.items()}
    if len(orders) > 1:
        one, other, *_ = orders.values()
        raise UsageError(f"{one} and {other} have their classes in different orders: evaluate each on its own")
    class_names = next(iter(orders))
    check_classes(forget, len(class_names), "forget class", "the data")
    if len(set(forget)) == len(class_names):
        raise UsageError("every class is to be forgotten: leave at least one to retain")
    return {name: evaluate_model(model, data[name], forget) for name, model in models.items()}, class_names
