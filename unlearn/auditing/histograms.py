"""Histograms of the answers' entropy: how sure each subject is of forget images and of retain images."""

from __future__ import annotations

import math
from typing import Any

import torch

from unlearn.auditing.bench import Bench
from unlearn.samples.logits import entropy

BINS = 25


def entropy_histograms(bench: Bench) -> list[dict[str, Any]]:
    """For each subject's first model and each kind of image: counts in `BINS` bins from 0 to log K nats.

    Raises:
        CannotRunError: there is no image to judge on, or a model answers with NaN or infinity.
    """
    if bench.target is not None:  # the entropy over bins depends on their number
        return []
    judge = bench.source.judge
    forgotten = bench.is_forgotten(judge.labels)
    highest = math.log(bench.num_classes)
    found = []
    for subject, models in bench.subjects.items():
        nats = entropy(bench.outputs(models[0], judge).logits)
        for kind, rows in (("forget", forgotten), ("retain", ~forgotten)):
            counts = torch.histc(nats[rows].clamp(0, highest), BINS, 0.0, highest)
            found.append({"subject": subject, "images": kind, "highest": highest, "counts": counts.long().tolist()})
    return found
