"""Retain accuracy on real images, where there is none of the forget classes among them, as after an erasure.

Definition: as the retain accuracy of the accuracy pair. All else is judged on synthetic images then, on which the original is right
by choice; this one is not.
Cost: one forward pass of the real test images a subject.
"""

from __future__ import annotations

import torch

from unlearn.audit.bench import Bench
from unlearn.audit.measures.accuracy import accuracy, confusions_on
from unlearn.audit.record.record import Measurement


def measure(bench: Bench) -> list[Measurement]:
    if bench.real is None or bench.judged is bench.real or not len(bench.real.judge.without(bench.forget)):
        return []
    confusions = confusions_on(bench.real, bench)
    retained = torch.ones(bench.num_classes, dtype=torch.bool)
    retained[list(bench.forget)] = False
    return [
        Measurement(
            name="accuracy-retain-real", title="retain accuracy on real images", unit="%", more_left=1, source="real",
            resolution=bench.resolution(0.5, int((~bench.is_forgotten(bench.real.judge.labels)).sum())), quality=True,
            details={"confusion": {subject: matrices[0].tolist() for subject, matrices in confusions.items()}},
            readings={subject: accuracy(matrices, retained, bench) for subject, matrices in confusions.items()},
        )
    ]  # fmt: skip
