"""Accuracy pair, accuracy per class, and where the forgotten images go.

Definition: the share of images that the model calls by their own class, over the retain classes and over the forget classes,
and the confusion matrix. The target is the retrained model's pair, never 0 or 100 %. A masked logit has a perfect pair.
Source: every unlearning paper; the confusion's distance is total variation, ½ Σ_c |a_c - b_c|.
Cost: one forward pass of the judged images a subject.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlearn.audit.bench import Bench
from unlearn.audit.images import Source
from unlearn.audit.record.intervals import share_interval
from unlearn.audit.record.record import RETRAINED, Measurement, Reading
from unlearn.evaluate import confusion_matrix


def measure(bench: Bench) -> list[Measurement]:
    source = bench.source
    forgotten = torch.zeros(bench.num_classes, dtype=torch.bool)
    forgotten[list(bench.forget)] = True
    confusions = confusions_on(source, bench)
    first = {subject: matrices[0].tolist() for subject, matrices in confusions.items()}
    forgotten_J = bench.is_forgotten(source.judge.labels)
    sets = (("retain", "retain accuracy", ~forgotten, 0.5), ("forget", "forget accuracy", forgotten, 1.0))
    measurements = [
        Measurement(
            name=f"accuracy-{name}", title=title, unit="%", more_left=1, source=source.kind,
            resolution=bench.resolution(least, int((forgotten_J == (name == "forget")).sum())),
            quality=name == "retain", details={"confusion": first} if name == "forget" else {},
            readings={s: accuracy(matrices, rows, bench) for s, matrices in confusions.items()},
        )
        for name, title, rows, least in sets
    ]  # fmt: skip
    if RETRAINED in confusions:
        measurements.append(destinations(confusions, forgotten, bench))
    return measurements


def confusions_on(source: Source, bench: Bench) -> dict[str, list[Tensor]]:
    """Of each subject's models, on the source's judged images."""
    return {
        subject: [
            confusion_matrix(
                source.judge.labels, bench.outputs(model, source.judge).logits.argmax(1), bench.num_classes
            )
            for model in models
        ]
        for subject, models in bench.subjects.items()
    }


def accuracy(confusions: list[Tensor], rows: Tensor, bench: Bench) -> Reading:
    """Per cent, over the images of the chosen true classes, with their sampling error as the interval."""
    counts = [(int(c.diagonal()[rows].sum()), int(c[rows].sum())) for c in confusions]
    right, seen = map(sum, zip(*counts, strict=True))
    values = tuple((100 * right / seen,) for right, seen in counts)
    return Reading(values, *share_interval(right, seen, bench.settings.confidence))


def destinations(confusions: dict[str, list[Tensor]], forgotten: Tensor, bench: Bench) -> Measurement:
    """How far the classes that forget images are called by lie from the retrained model's choice; 0 to 1."""
    goes = {subject: [where(c, forgotten) for c in matrices] for subject, matrices in confusions.items()}
    readings = {}
    for subject, shares in goes.items():
        others = [
            [total_variation(share, other) for other in goes[RETRAINED] if other is not share] for share in shares
        ]
        if all(others):
            readings[subject] = bench.reading(others)
    return Measurement(
        name="confusion-distance", title="where forget images go, against retrained", unit="", more_left=0,
        resolution=0.1, source=bench.source.kind, readings=readings, against_retrained=True,
    )  # fmt: skip


def where(confusion: Tensor, forgotten: Tensor) -> Tensor:
    """The distribution over called classes (K,) of the forget classes' images."""
    counts = confusion[forgotten].sum(0).double()
    return counts / counts.sum()


def total_variation(first: Tensor, second: Tensor) -> float:
    """½ Σ_c |a_c - b_c|: 0 for equal distributions, 1 for disjoint ones."""
    return 0.5 * (first - second).abs().sum().item()
