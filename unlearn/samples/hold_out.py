"""Images that are held out of the training, to judge a student by. Their number is bounded, whatever the run's size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unlearn.samples.filters import Filter, apply, view_of
from unlearn.samples.memory import bytes_of_shard
from unlearn.samples.runs import Runs

MOST_IMAGES = 20_000
SHARE_OF_MEMORY = 0.25  # of that for decoded images


@dataclass(frozen=True)
class HoldOut:
    """N images as they are: uint8 (N, C, H, W), their classes int64 (N,), and the teacher's logits float32 (N, K)."""

    images: Tensor
    labels: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def hold_out(runs: Runs, filters: Mapping[str, Filter], share: float, memory: int) -> HoldOut:
    """The images of complete runs, without views, that pass the filters.

    If they were more than 20,000, or took more than a quarter of the memory, only as many shards are read as give this
    number. These are drawn at random, the same ones every time.

    Args:
        share: of a shard's images that are expected to pass.
        memory: bytes for decoded images.

    Raises:
        UserError: a shard is missing or damaged.
    """
    of_image = bytes_of_shard(runs) / runs.most_images
    most = min(MOST_IMAGES, SHARE_OF_MEMORY * memory / of_image)
    shards = max(1, int(most / (share * runs.most_images)))
    chosen = sorted(np.random.default_rng(0).permutation(runs.planned)[:shards].tolist())
    found: list[HoldOut] = []
    for shard in chosen:
        samples = runs.read(shard)
        passed, _ = apply(filters, view_of(samples, runs.plan_of(shard)))
        rows = passed.view(samples.logits.shape[:2])[:, 0].numpy()
        kept = (samples.images[rows], samples.labels[rows], samples.logits[rows, 0])
        found.append(HoldOut(*map(torch.from_numpy, kept)))
    images, labels, logits = (torch.cat([getattr(part, n) for part in found]) for n in ("images", "labels", "logits"))
    return HoldOut(images, labels, logits.float())
