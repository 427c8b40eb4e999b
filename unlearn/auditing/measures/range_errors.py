"""Range errors: how well does a regressor still predict the forgotten range? For regressors only.

hits        The share of images whose prediction (the median) is at most one bin's width from their target, on the
            retain range and on the forget range. It takes the place of the accuracy pair. A model that never saw the
            range may hit it too, by interpolation between what it saw, so only the retrained models show what is
            usual.
error       The mean absolute error on the forget range and on the retain range, in the target's unit. A small error on
            the forget range is more that is left.
likelihood  The mean of -log p(y | x), in nats, with a density per unit that is even within each bin.
coverage    The share of the images whose target lies in the predicted central 90 % interval.
distance    The Wasserstein distance of the predictions for images of the forget range to those of a retrained model,
            in the target's unit: ∫ |F(y) - G(y)| dy. Used for ages by Tarun et al. 2023 (Deep Regression Unlearning).
Cost: one forward pass of the judged images per model.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from synth.checkpoint.classifier import Classifier
from synth.checkpoint.masses import covered, median, near, negative_log_likelihood
from synth.checkpoint.target import Target
from unlearn.auditing.bench import Bench
from unlearn.auditing.record.details import NOTHING, SHARES
from unlearn.auditing.record.record import RETRAINED, Measurement, Reading
from unlearn.regression import INTERVAL, distance

DETAILS = {
    "accuracy": {"hits-(retain|forget)": SHARES},
    "range": {"(error|likelihood)-(retain|forget)": NOTHING, "coverage-(retain|forget)": SHARES},
    "divergence": {"prediction-distance": NOTHING},
}
TASKS = ("regression",)
SMALLEST_ERROR = 0.25  # of a bin's width: what a distribution over bins can show
Mean = Callable[[Classifier, "Value"], float]
Value = Callable[[Tensor, Tensor], Tensor]  # of logits (N, K) and targets (N,), one value per image (N,)


def measure(bench: Bench) -> list[Measurement]:
    target = bench.target
    assert target is not None, "for regressors only"
    judge = bench.source.judge
    forgotten, values = bench.is_forgotten(judge.labels), judge.values
    unit = f" in {target.unit}" if target.unit else ""
    width = f"{target.width:g} {target.unit or ''}".rstrip()
    found = []
    for part, rows in (("retain", ~forgotten), ("forget", forgotten)):
        count, quality = int(rows.sum()), part == "retain"

        def mean(model: Classifier, value: Value, rows: Tensor = rows) -> float:
            return value(bench.outputs(model, judge).logits[rows], values[rows]).double().mean().item()

        def reading(value: Value, images: int | None = None, mean: Mean = mean) -> dict[str, Reading]:
            return {
                subject: bench.reading([[mean(model, value)] for model in models], images)
                for subject, models in bench.subjects.items()
            }

        def measurement(
            name: str,
            title: str,
            readings: dict[str, Reading],
            more_left: int,
            resolution: float,
            *,
            family: str = "range",
            images: int | None = None,
            key: bool = False,
            quality: bool = quality,
            part: str = part,
        ) -> Measurement:
            return Measurement(
                name=f"{name}-{part}",
                family=family,
                title=f"{title}, {part} range",
                unit="%" if images else "",
                more_left=more_left,
                resolution=resolution,
                source=bench.source.kind,
                readings=readings,
                key=key,
                quality=quality,
                details={"images": images} if images else {},
            )

        hits, inside = hit(target), in_interval(target)
        found += [
            measurement(
                *("hits", f"predictions within {width} of the target", reading(hits, images=count), 1),
                *(bench.resolution(1.0, count),),
                family="accuracy",
                images=count,
                key=True,
            ),
            measurement(
                *("error", f"mean absolute error{unit}", reading(error(target)), -1, SMALLEST_ERROR * target.width),
                key=True,
            ),
            measurement("likelihood", "-log likelihood in nats", reading(surprise(target)), -1, 0.1),
            measurement(
                *("coverage", f"targets in the {INTERVAL:.0%} interval", reading(inside, images=count), 1),
                *(bench.resolution(1.0, count),),
                images=count,
                quality=True,
            ),
        ]
    return found + distances(bench, target, forgotten)


def hit(target: Target) -> Value:
    return lambda logits, values: 100.0 * near(median(logits, target), values, target)


def error(target: Target) -> Value:
    return lambda logits, values: (median(logits, target) - values).abs()


def surprise(target: Target) -> Value:
    return lambda logits, values: negative_log_likelihood(logits, values, target)


def in_interval(target: Target) -> Value:
    return lambda logits, values: 100.0 * covered(logits, values, target, INTERVAL)


def distances(bench: Bench, target: Target, forgotten: Tensor) -> list[Measurement]:
    """How far each model's predictions inside the range are from those of each retrained model, but itself."""
    if RETRAINED not in bench.subjects:
        return []
    judge = bench.source.judge
    predicted = {
        subject: [median(bench.outputs(m, judge).logits[forgotten], target).tolist() for m in models]
        for subject, models in bench.subjects.items()
    }
    readings = {}
    for subject, models in predicted.items():
        values = [[distance(ours, other) for other in predicted[RETRAINED] if other is not ours] for ours in models]
        if all(values):
            readings[subject] = bench.reading(values)
    unit = f" in {target.unit}" if target.unit else ""
    return [
        Measurement(
            name="prediction-distance",
            family="divergence",
            title=f"predictions inside the range, Wasserstein distance to retrained{unit}",
            unit="",
            more_left=0,
            resolution=SMALLEST_ERROR * target.width,
            source=bench.source.kind,
            readings=readings,
            key=True,
            against_retrained=True,
        )
    ]
