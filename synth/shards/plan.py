"""A run's plan: which images exist, in which shards, from which seeds. It is computed; nothing is stored per image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LARGEST_RUN = 10**9  # keys have nine digits
PREPARATION = -1  # instead of a shard's number


@dataclass(frozen=True)
class ShardJob:
    """One shard to make: the images with the numbers `start` to `stop` (excluded). Their classes alternate.

    Each image is a sample, followed by `blends` samples that blend it with another image of the shard.
    """

    number: int
    start: int
    stop: int
    classes: tuple[int, ...]
    seed: int
    blends: int = 0

    @property
    def prepares(self) -> bool:
        """Whether this is the job before all shards (`Plan.preparation`), and not a shard."""
        return self.number == PREPARATION

    @property
    def samples(self) -> int:
        return (self.stop - self.start) * (1 + self.blends)

    @property
    def image_labels(self) -> list[int]:
        """The class of each image."""
        return [self.classes[image % len(self.classes)] for image in range(self.start, self.stop)]

    @property
    def labels(self) -> list[int]:
        """The class of each sample. The class of a blend is that of the image with the larger share."""
        return [label for label in self.image_labels for _ in range(1 + self.blends)]

    @property
    def keys(self) -> list[str]:
        first = self.start * (1 + self.blends)
        return [f"{key:09d}" for key in range(first, first + self.samples)]

    @property
    def class_counts(self) -> dict[int, int]:
        return dict(sorted(Counter(self.labels).items()))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`per_class` images of every class in shards of at most `shard_size` images, each image with `blends` blends.

    Classes alternate from image to image, so every shard and batch mixes them. The sizes of shards differ by at most
    one image, so no batch is small and has poor statistics. Raises ValueError for a plan that cannot be made.
    """

    classes: tuple[int, ...]
    per_class: int
    shard_size: int = 1000
    blends: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes) or min(self.classes) < 0:
            raise ValueError("classes must be distinct indices from 0 up, at least one")
        if self.per_class < 1:
            raise ValueError(f"--per-class must be 1 or more, not {self.per_class}")
        if self.shard_size < 1:
            raise ValueError(f"--shard-size must be 1 or more, not {self.shard_size}")
        if not 0 <= self.blends <= 1000:
            raise ValueError(f"--blends must be within 0 and 1000, not {self.blends}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed must be within 0 and 2^63 - 1, not {self.seed}")
        if self.samples > LARGEST_RUN:
            raise ValueError(f"a run holds at most {LARGEST_RUN:,} samples, not {self.samples:,}: make several runs")

    @property
    def images(self) -> int:
        return self.per_class * len(self.classes)

    @property
    def samples(self) -> int:
        return self.images * (1 + self.blends)

    @property
    def shards(self) -> int:
        return -(-self.images // self.shard_size)

    def span(self, number: int) -> tuple[int, int]:
        """A shard's images: the number of the first, and that after the last."""
        return self.images * number // self.shards, self.images * (number + 1) // self.shards

    def samples_in(self, number: int) -> int:
        start, stop = self.span(number)
        return (stop - start) * (1 + self.blends)

    def job(self, number: int) -> ShardJob:
        start, stop = self.span(number)
        return ShardJob(
            number=number,
            start=start,
            stop=stop,
            classes=self.classes,
            seed=shard_seed(self.seed, number),
            blends=self.blends,
        )

    def preparation(self) -> ShardJob:
        """The job that trains the generator, for methods with one. Its result is the generator's checkpoint."""
        return ShardJob(number=PREPARATION, start=0, stop=0, classes=self.classes, seed=self.seed)

    def jobs(self) -> Iterator[ShardJob]:
        return map(self.job, range(self.shards))


def shard_seed(seed: int, number: int) -> int:
    """The shard's own 63-bit seed, from a counter-based random source (Philox) keyed by (run seed, shard number)."""
    key = np.array([seed, number], dtype=np.uint64)
    return int(np.random.Philox(key=key).random_raw()) >> 1
