"""Histograms of the answers' entropy: how sure each subject is of forget and of retain images."""

from __future__ import annotations

import math
from typing import Any

import torch

from unlearn.audit.bench import Bench
from unlearn.samples.logits import entropy

BINS = 25


def entropy_histograms(bench: Bench) -> list[dict[str, Any]]:
    """Per subject (its first model) and kind of image: counts in `BINS` bins from 0 to log K nats."""
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
