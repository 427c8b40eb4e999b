"""The measures of an audit of points: what models say of them, and whether they are told from images never seen.

labels      the share of points that a model calls by their label. Of memorised points this is what has to go; of
            typical points it should stay.
agreement   the share of points that a model calls as a retrained model does, minus the same share of the test images
            beside the points. It is 0 for a model that treats the points like any other images, however good it is.
            Below the retrained models' interval, the points are treated in a special way: over-unlearning.
rmia, lira  the areas under the ROC curves of two attacks that tell the points from the test images beside them
            (`membership_scores`). 50 % is blind.
divergence  Jensen-Shannon divergence from the retrained models on the points, in bits.

A retrained model is always compared with the others only. The other models are compared with every set of references
that lacks one, and have one value for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synth.checkpoint.classifier import predict
from unlearn.auditing.measures.divergence import js_bits
from unlearn.auditing.points.lineup import Beside, Groups, Lineup
from unlearn.auditing.points.membership_scores import area, chances, rmia, u_lira
from unlearn.auditing.record.intervals import smallest_share
from unlearn.auditing.record.record import RETRAINED, Measurement, Reading
from unlearn.data import LabelledImages

LEAST = 5.0  # %, the smallest difference of two areas that counts
FEWEST = 5  # points of a group that are measured; called by their label they are from one on

Values = dict[str, list[list[float]]]  # by subject, model and repeat


@dataclass(frozen=True)
class Said:
    """The logits of every subject's models, by subject: (N, K) per model."""

    points: Mapping[str, Sequence[Tensor]]
    beside: Mapping[str, Sequence[Tensor]] | None = None  # None without real test images
    others: Mapping[str, Sequence[Tensor]] | None = None


def ask(models: Lineup, points: Tensor, beside: Beside | None, others: LabelledImages | None) -> Said:
    """What every model says of the points (P, C, H, W), of the images beside them, and of the population."""

    def of(images: Tensor) -> dict[str, list[Tensor]]:
        return {name: [predict(model, images) for model in each] for name, each in models.items()}

    if beside is None or others is None:
        return Said(of(points))
    return Said(of(points), of(beside.images.images), of(others.images))


def with_references(said: Mapping[str, Sequence[Tensor]]) -> dict[str, list[list[tuple[int, list[int]]]]]:
    """For each subject and model, the sets of references that it is compared with, one per repeat."""
    count = len(said.get(RETRAINED, ()))
    every = list(range(count))
    without_one = [[r for r in every if r != out] for out in every] if count > 1 else [every]
    return {
        name: [
            [(n, [r for r in every if r != n])] if name == RETRAINED else [(n, refs) for refs in without_one]
            for n in range(len(models))
        ]
        for name, models in said.items()
    }


def compared(said: Mapping[str, Sequence[Tensor]], value: Callable[[str, int, list[int]], float], least: int) -> Values:
    """The value of each model with each set of at least `least` references."""
    found: Values = {}
    for name, models in with_references(said).items():
        rows = [[value(name, n, refs) for n, refs in sets if len(refs) >= least] for sets in models]
        if all(rows):
            found[name] = rows
    return found


def measure_points(
    said: Said,
    labels: Tensor,
    groups: Groups | None,
    beside: Beside | None,
    others: LabelledImages | None,
    confidence: float,
) -> list[Measurement]:
    """Every measurement that the inputs allow. Without references the points are one group.

    Args:
        labels: of the points, (P,).
    """
    by_name = groups.by_name if groups else {"all": torch.ones(len(labels), dtype=torch.bool)}
    found = []
    for name, mask in by_name.items():
        if not mask.any():
            continue
        found.append(said_labels(said, labels, name, mask, confidence))
        if RETRAINED not in said.points or int(mask.sum()) < FEWEST:
            continue
        found.append(divergence(said, name, mask, confidence))
        if beside is not None and others is not None and mask[beside.of].any():
            found += [
                agreement(said, name, mask, beside, confidence),
                *attacks(said, labels, name, mask, beside, others, confidence),
            ]
    return [m for m in found if m.readings]


def said_labels(said: Said, labels: Tensor, name: str, mask: Tensor, confidence: float) -> Measurement:
    count = int(mask.sum())
    values = {
        subject: [[100 * (logits.argmax(1) == labels)[mask].double().mean().item()] for logits in models]
        for subject, models in said.points.items()
    }
    return measurement(
        f"labels-{name}",
        f"{name} points called by their label",
        "%",
        max(1.0, smallest_share(count, confidence)),
        values,
        confidence,
        images=count,
        quality=name == "typical",
    )


def agreement(said: Said, name: str, mask: Tensor, beside: Beside, confidence: float) -> Measurement:
    assert said.beside is not None
    near = mask[beside.of]
    calls = {s: [logits.argmax(1) for logits in models] for s, models in said.points.items()}
    calls_beside = {s: [logits.argmax(1) for logits in models] for s, models in said.beside.items()}

    def same(found: dict[str, list[Tensor]], rows: Tensor, subject: str, n: int, refs: list[int]) -> float:
        shares = [(found[subject][n] == found[RETRAINED][r])[rows].double().mean().item() for r in refs]
        return 100 * sum(shares) / len(shares)

    def value(subject: str, n: int, refs: list[int]) -> float:
        return same(calls, mask, subject, n, refs) - same(calls_beside, near, subject, n, refs)

    return measurement(
        f"agreement-{name}",
        f"{name} points called as retrained models do, minus test images",
        "points",
        max(5.0, smallest_share(int(mask.sum()), confidence)),
        compared(said.points, value, 1),
        confidence,
    )


def attacks(
    said: Said, labels: Tensor, name: str, mask: Tensor, beside: Beside, others: LabelledImages, confidence: float
) -> list[Measurement]:
    assert said.beside is not None
    assert said.others is not None
    near = mask[beside.of]
    p = {s: [chances(logits, labels)[mask] for logits in models] for s, models in said.points.items()}
    p_near = {s: [chances(logits, beside.labels)[near] for logits in models] for s, models in said.beside.items()}
    p_z = {s: [chances(logits, others.labels) for logits in models] for s, models in said.others.items()}

    def out(found: dict[str, list[Tensor]], refs: list[int]) -> Tensor:
        return torch.stack([found[RETRAINED][r] for r in refs])

    def by_rmia(subject: str, n: int, refs: list[int]) -> float:
        z = p_z[subject][n], out(p_z, refs).mean(0)
        scores = [rmia(found[subject][n], out(found, refs).mean(0), *z) for found in (p, p_near)]
        return area(scores[0], scores[1])

    def by_lira(subject: str, n: int, refs: list[int]) -> float:
        return area(*(u_lira(found[subject][n], out(found, refs)) for found in (p, p_near)))

    return [
        measurement(
            f"{attack}-{name}",
            f"{name} points against test images, by {title}",
            "%",
            area_error(int(mask.sum()), int(near.sum())),
            compared(said.points, value, least),
            confidence,
        )
        for attack, title, value, least in (("rmia", "RMIA", by_rmia, 1), ("lira", "U-LiRA", by_lira, 2))
    ]


def area_error(points: int, others: int) -> float:
    """The standard error, in %, of the area under the ROC curve of a blind attack (Mann & Whitney 1947); at least 5.

    One and not two, because all models are asked about the same images, and share most of the error.
    """
    return max(LEAST, 100 * math.sqrt((points + others + 1) / (12 * points * others)))


def divergence(said: Said, name: str, mask: Tensor, confidence: float) -> Measurement:
    q = {s: [logits[mask].double().softmax(1) for logits in models] for s, models in said.points.items()}
    values = {
        subject: rows
        for subject, models in q.items()
        if all(rows := [[js_bits(p, r).mean().item() for r in q[RETRAINED] if r is not p] for p in models])
    }
    return measurement(
        f"divergence-{name}",
        f"divergence from retrained on {name} points",
        "bits",
        0.05,
        values,
        confidence,
        more_left=0,
        against_retrained=True,
    )


def retain_accuracy(models: Lineup, test: LabelledImages, confidence: float) -> Measurement:
    values = {
        name: [[100 * (predict(model, test.images).argmax(1) == test.labels).double().mean().item()] for model in each]
        for name, each in models.items()
    }
    return measurement(
        "accuracy", "accuracy on test images", "%", 0.5, values, confidence, images=len(test), quality=True
    )


def measurement(
    name: str,
    title: str,
    unit: str,
    resolution: float,
    values: Values,
    confidence: float,
    images: int | None = None,
    more_left: int = 1,
    **flags: Any,
) -> Measurement:
    return Measurement(
        name=name,
        family=name.partition("-")[0],
        title=title,
        unit=unit,
        more_left=more_left,
        resolution=resolution,
        source="real",
        readings={subject: Reading.of(rows, confidence, images) for subject, rows in values.items()},
        details={"images": images} if images else {},
        **flags,
    )
