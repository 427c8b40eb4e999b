"""A run's plan: which images exist, in which shards, from which seeds. Pure arithmetic, nothing is stored per image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LARGEST_RUN = 10**9  # keys have nine digits


@dataclass(frozen=True)
class ShardJob:
    """One shard to make: the images with keys `start` to `stop` (excluded), whose classes take turns."""

    number: int
    start: int
    stop: int
    classes: tuple[int, ...]
    seed: int

    @property
    def labels(self) -> list[int]:
        return [self.classes[key % len(self.classes)] for key in range(self.start, self.stop)]

    @property
    def class_counts(self) -> dict[int, int]:
        return dict(sorted(Counter(self.labels).items()))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`per_class` images of every class in shards of at most `shard_size`.

    Classes take turns from key to key, so every shard and batch mixes them, and shards differ by at most one image in
    size, so that no small last batch has poor statistics.
    """

    classes: tuple[int, ...]
    per_class: int
    shard_size: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes) or min(self.classes) < 0:
            raise ValueError("classes must be distinct indices from 0 on, at least one")
        if self.per_class < 1:
            raise ValueError(f"--per-class must be 1 or more, not {self.per_class}")
        if self.shard_size < 1:
            raise ValueError(f"--shard-size must be 1 or more, not {self.shard_size}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed must be within 0 and 2^63 - 1, not {self.seed}")
        if self.samples > LARGEST_RUN:
            raise ValueError(f"a run holds at most {LARGEST_RUN:,} images, not {self.samples:,}: make several runs")

    @property
    def samples(self) -> int:
        return self.per_class * len(self.classes)

    @property
    def shards(self) -> int:
        return -(-self.samples // self.shard_size)

    def job(self, number: int) -> ShardJob:
        return ShardJob(
            number=number,
            start=self.samples * number // self.shards,
            stop=self.samples * (number + 1) // self.shards,
            classes=self.classes,
            seed=shard_seed(self.seed, number),
        )

    def jobs(self) -> Iterator[ShardJob]:
        return map(self.job, range(self.shards))


def shard_seed(seed: int, number: int) -> int:
    """A 63-bit seed of the shard's own, from a counter-based generator keyed by (run seed, shard number)."""
    key = np.array([seed, number], dtype=np.uint64)
    return int(np.random.Philox(key=key).random_raw() >> np.uint64(1))
