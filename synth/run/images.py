"""The images of a run, shard by shard, without their blends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from synth.shards.index import Index, read_shard
from synth.shards.store import Store


@dataclass(frozen=True)
class ShardImages:
    """The images of one shard."""

    images: np.ndarray  # uint8 (N, C, H, W)
    labels: np.ndarray  # int64 (N,)

    def __len__(self) -> int:
        return len(self.labels)


def images_by_shard(store: Store, index: Index) -> Iterator[ShardImages]:
    """The images of each published shard, in the order of the shards."""
    for number in sorted(index.entries):
        samples = read_shard(store, index, index.entries[number])
        rows = [row for row, record in enumerate(samples.records) if "share" not in record]
        yield ShardImages(samples.images[rows], samples.labels[rows])
