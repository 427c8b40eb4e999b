"""How well classifiers do on real test images: accuracy on retain and forget classes, per class, and confusions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from synth.basics.errors import UsageError
from synth.checkpoint.arithmetic import measured
from synth.checkpoint.card import ModelCard
from synth.checkpoint.class_choice import Classes, choose_classes
from synth.checkpoint.class_matching import numbered
from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.file import load_checkpoint, read_card
from synth.checkpoint.range_choice import choose, words_for
from unlearn.data import DataSource, LabelledImages, check_data, quiet
from unlearn.regression import RegressionEvaluation, evaluate_regressor


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in per cent. `confusion[t][p]` counts the images of class t that the model called p."""

    retain: float
    forget: float | None  # None if there was no image of a forget class
    per_class: list[float | None]
    confusion: list[list[int]]
    images: int


def evaluate(
    checkpoints: Mapping[str, Path],
    source: DataSource,
    asked: Classes,
    trusted_architecture: str | None,
    device: str,
    images: LabelledImages | None = None,
) -> tuple[dict[str, Evaluation] | dict[str, RegressionEvaluation], tuple[str, ...], tuple[int, ...]]:
    """Evaluate each checkpoint on the same test images. Regressors get a `RegressionEvaluation`.

    Args:
        checkpoints: their paths, by the name that the results have.
        asked: the forget classes.
        images: the test images of `source`, if they are loaded already.

    Returns:
        The evaluations by name, the class names in the order of the checkpoints' outputs, and the numbers of the forget
        classes.

    Raises:
        UsageError: a checkpoint does not fit the data, checkpoints have their classes in different orders, or `asked`
            names a class that does not exist or leaves none to retain.
    """
    models = {name: measured(load_checkpoint(path, trusted_architecture), device) for name, path in checkpoints.items()}
    card = next(iter(models.values())).card
    names = None if numbered(card.class_names) else card.class_names
    forget = choose(asked, card, "forget class") if names else ()  # what is wrong, before any image is read
    images = images or source.load("test", card)
    if names is None:
        names = images.class_names if len(images.class_names) == card.num_classes else card.class_names
        forget = choose_classes(asked, names, "forget class")
    if len(forget) == card.num_classes:
        raise UsageError("every class is to be forgotten: leave at least one class to retain")
    data, say = {}, source.say
    for name, model in models.items():
        data[name] = check_data(model.card, images, checkpoints[name], source.name, forget, say)
        say = quiet  # of the next ones it would say the same
    class_names = common_class_names({checkpoints[name]: d.class_names for name, d in data.items()})
    shown = next(iter(data.values()))
    source.say(f"the forget {words_for(forget, shown).removeprefix('the ')}")
    if shown.target is not None:
        errors = {name: evaluate_regressor(model, data[name], forget) for name, model in models.items()}
        return errors, class_names, forget
    return {name: evaluate_model(model, data[name], forget) for name, model in models.items()}, class_names, forget


def named_checkpoints(model: Path, teacher: Path | None, reference: Path | None) -> dict[str, Path]:
    """The checkpoints by what they are. The model's own card says what it is: original, student or retrained."""
    kind = kind_of(read_card(model))
    before = {} if teacher is None else {"original": teacher}
    after = {} if reference is None else {"retrained": reference}
    return {**before, "model" if kind in {**before, **after} else kind: model, **after}


def kind_of(card: ModelCard) -> str:
    """What a model is by its card: original, student (made from a teacher) or retrained (without some classes)."""
    if "teacher_sha256" in card.training:
        return "student"
    return "retrained" if card.training.get("without") else "original"


def common_class_names(class_names: Mapping[Path, tuple[str, ...]]) -> tuple[str, ...]:
    """The class names that all checkpoints share. Raises UsageError if two of them have different ones."""
    (first, names), *others = class_names.items()
    for path, other in others:
        if other != names:
            raise UsageError(f"{first} and {path} have their classes in different orders: evaluate each on its own")
    return names


def evaluate_model(model: Classifier, data: LabelledImages, forget: tuple[int, ...]) -> Evaluation:
    """Evaluate one model on images that are labelled in the order of its classes.

    The two accuracies are means over images: those of the retain classes, and those of the forget classes.

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
        raise UsageError("the data has no test image of a retain class: name data that has some")
    return Evaluation(
        retain=retain,
        forget=percent(right[forgotten].sum(), seen[forgotten].sum()),
        per_class=[percent(r, n) for r, n in zip(right, seen, strict=True)],
        confusion=confusion.tolist(),
        images=len(data),
    )


def confusion_matrix(labels: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """How many images of each class (rows) got each answer (columns), (K, K), from labels (N,) and answers (N,)."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def percent(right: Tensor, seen: Tensor) -> float | None:
    """100 · right / seen of two counts; None if there is nothing to count."""
    return None if seen.item() == 0 else 100.0 * right.item() / seen.item()
