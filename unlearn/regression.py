"""How well regressors do on real test images: error, likelihood and coverage, on the retain and on the forget range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from synth.basics.errors import UsageError
from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.masses import covered, median, negative_log_likelihood
from synth.checkpoint.target import Target
from unlearn.data import LabelledImages

INTERVAL = 0.9  # of the predicted mass, in the central interval whose coverage is measured


@dataclass(frozen=True)
class Errors:
    """What a regressor's predictions are worth on some images.

    Attributes:
        mae: the mean of |median - target|, in the target's unit.
        nll: the mean of -log p(target | image), in nats, with a density per unit that is even within each bin.
        coverage: the share of the images whose target lies in the predicted central 90 % interval, in per cent.
    """

    mae: float
    nll: float
    coverage: float
    images: int


@dataclass(frozen=True)
class RegressionEvaluation:
    """Errors on the retain range, on the forget range if there is an image in it, and the predictions themselves."""

    target: Target
    retain: Errors
    forget: Errors | None
    targets: tuple[float, ...]  # of the images, in the target's unit
    predictions: tuple[float, ...]  # the medians
    forgotten: tuple[bool, ...]  # whether an image's target is in the forget range

    @property
    def images(self) -> int:
        return len(self.targets)

    @property
    def predictions_inside(self) -> list[float]:
        """The predictions of the images of the forget range."""
        return [value for value, inside in zip(self.predictions, self.forgotten, strict=True) if inside]


def evaluate_regressor(model: Classifier, data: LabelledImages, forget: Sequence[int]) -> RegressionEvaluation:
    """Evaluate one model on images with targets. `forget` are the bins of the forget range.

    Raises UsageError if there is no image of the retain range.
    """
    assert data.targets is not None, "data for regression"
    assert data.target is not None, "data for regression"
    logits = predict(model, data.images)
    forgotten = torch.isin(data.labels, torch.tensor(tuple(forget), dtype=torch.long))
    retain, gone = (errors(logits[rows], data.targets[rows], data.target) for rows in (~forgotten, forgotten))
    if retain is None:
        raise UsageError("the data has no test image of the retain range: name data that has some")
    return RegressionEvaluation(
        target=data.target,
        retain=retain,
        forget=gone,
        targets=tuple(data.targets.tolist()),
        predictions=tuple(median(logits, data.target).tolist()),
        forgotten=tuple(forgotten.tolist()),
    )


def distance(predictions: Sequence[float], others: Sequence[float]) -> float:
    """The Wasserstein distance of two sets of predictions, in the target's unit: ∫ |F(y) - G(y)| dy."""
    return float(wasserstein_distance(predictions, others))


def errors(logits: Tensor, values: Tensor, target: Target) -> Errors | None:
    """The errors of predictions (N, K) of targets (N,); None without images."""
    if not len(values):
        return None
    return Errors(
        mae=(median(logits, target) - values).abs().mean().item(),
        nll=negative_log_likelihood(logits, values, target).mean().item(),
        coverage=100 * covered(logits, values, target, INTERVAL).double().mean().item(),
        images=len(values),
    )
