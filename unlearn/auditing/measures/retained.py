"""Retain accuracy on real images, if the real images include none of the forget classes, as after an erasure.

Definition: the retain accuracy of the accuracy pair. All other measures are then judged on synthetic images, on which
the original is always right because only such images were kept; this measure is not affected by that choice.
Source: every paper on unlearning.
Cost: one forward pass of the real test images per model.
"""

from __future__ import annotations

import torch

from unlearn.auditing.bench import Bench
from unlearn.auditing.measures.accuracy import CONFUSION, accuracy, confusions_on
from unlearn.auditing.record.record import Measurement

TASKS = ("classification",)
DETAILS = {"accuracy": {"accuracy-retain-real": CONFUSION}}
FROM_REAL = ("retain accuracy",)


def measure(bench: Bench) -> list[Measurement]:
    if bench.real is None or bench.missing_among(bench.real.judge) != "forget" or not len(bench.real.judge):
        return []
    confusions = confusions_on(bench.real, bench)
    retained = torch.ones(bench.num_classes, dtype=torch.bool)
    retained[list(bench.forget)] = False
    images = int((~bench.is_forgotten(bench.real.judge.labels)).sum())
    return [
        Measurement(
            name="accuracy-retain-real",
            family="accuracy",
            title="retain accuracy on real images",
            unit="%",
            more_left=1,
            resolution=bench.resolution(0.5, images),
            source="real",
            readings={subject: accuracy(matrices, retained, bench) for subject, matrices in confusions.items()},
            key=True,
            quality=True,
            details={"confusion": {subject: matrices[0].tolist() for subject, matrices in confusions.items()}},
        )
    ]
