"""A run's plan: which images exist, in which shards, from which seeds. It is computed; nothing is stored per image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

PNG, JPG = "png", "jpg"
IMAGE_FORMATS = (PNG, JPG)
LARGEST_RUN = 10**9  # images; keys have nine digits
MOST_VIEWS = 1000  # of an image
PREPARATION = -1  # instead of a shard's number


@dataclass(frozen=True)
class ShardJob:
    """One shard to make: the images with the numbers `start` to `stop` (excluded). Their classes alternate.

    `views`, `view_crop` and `image_format` are as in `Plan`.
    """

    number: int
    start: int
    stop: int
    classes: tuple[int, ...]
    seed: int
    views: int = 0
    view_crop: float = 1.0
    image_format: str = PNG

    @property
    def prepares(self) -> bool:
        """Whether this is the job before all shards (`Plan.preparation`), and not a shard."""
        return self.number == PREPARATION

    @property
    def images(self) -> int:
        return self.stop - self.start

    @property
    def labels(self) -> list[int]:
        """The class of each image."""
        return [self.classes[image % len(self.classes)] for image in range(self.start, self.stop)]

    @property
    def keys(self) -> list[str]:
        return [f"{image:09d}" for image in range(self.start, self.stop)]

    @property
    def class_counts(self) -> Mapping[int, int]:
        return counts_of_classes(self.classes, self.start % len(self.classes), self.images)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`per_class` images of every class in shards of at most `shard_size` images, each image with `views` views.

    Classes alternate from image to image, so every shard and batch mixes them. The sizes of shards differ by at most
    one image, so no batch is small and has poor statistics. Raises ValueError for a plan that cannot be made.

    Attributes:
        view_crop: the smallest share of the image's area that a view shows; 1 crops nothing.
        image_format: png, or jpg (`synth.shards.images`).
    """

    classes: tuple[int, ...]
    per_class: int
    shard_size: int = 1000
    views: int = 0
    view_crop: float = 1.0
    image_format: str = PNG
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes) or min(self.classes) < 0:
            raise ValueError("classes must be distinct indices from 0 up, at least one")
        if self.per_class < 1:
            raise ValueError(f"--per-class must be 1 or more, not {self.per_class}")
        if self.shard_size < 1:
            raise ValueError(f"--shard-size must be 1 or more, not {self.shard_size}")
        if not 0 <= self.views <= MOST_VIEWS:
            raise ValueError(f"--views must be within 0 and {MOST_VIEWS}, not {self.views}")
        if not 0 < self.view_crop <= 1:
            raise ValueError(f"--view-crop must be above 0 and at most 1, not {self.view_crop}")
        if self.image_format not in IMAGE_FORMATS:
            raise ValueError(f"--image-format must be {' or '.join(IMAGE_FORMATS)}, not {self.image_format[:20]}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed must be within 0 and 2^63 - 1, not {self.seed}")
        if self.images > LARGEST_RUN:
            raise ValueError(f"a run holds at most {LARGEST_RUN:,} images, not {self.images:,}: make several runs")

    @property
    def images(self) -> int:
        return self.per_class * len(self.classes)

    @property
    def shards(self) -> int:
        return -(-self.images // self.shard_size)

    def span(self, number: int) -> tuple[int, int]:
        """A shard's images: the number of the first, and that after the last."""
        return self.images * number // self.shards, self.images * (number + 1) // self.shards

    def images_in(self, number: int) -> int:
        start, stop = self.span(number)
        return stop - start

    def job(self, number: int) -> ShardJob:
        start, stop = self.span(number)
        return ShardJob(
            number=number,
            start=start,
            stop=stop,
            classes=self.classes,
            seed=shard_seed(self.seed, number),
            views=self.views,
            view_crop=self.view_crop,
            image_format=self.image_format,
        )

    def preparation(self) -> ShardJob:
        """The job that trains the generator, for methods with one. Its result is the generator's checkpoint."""
        return ShardJob(number=PREPARATION, start=0, stop=0, classes=self.classes, seed=self.seed)

    def jobs(self) -> Iterator[ShardJob]:
        return map(self.job, range(self.shards))


@lru_cache(maxsize=4096)
def counts_of_classes(classes: tuple[int, ...], first: int, images: int) -> Mapping[int, int]:
    """How often each class occurs in these images, the first of which has the class at the place `first`.

    Most shards of a run share one of few results, so that a driver holds 1,000 counts once and not for each shard.
    """
    every, rest = divmod(images, len(classes))
    more = {classes[(first + place) % len(classes)] for place in range(rest)}
    return {label: every + (label in more) for label in sorted(classes) if every or label in more}


def shard_seed(seed: int, number: int) -> int:
    """The shard's own 63-bit seed, from a counter-based random source (Philox) keyed by (run seed, shard number)."""
    import numpy as np  # here, because the command line reads this file for --help

    key = np.array([seed, number], dtype=np.uint64)
    return int(np.random.Philox(key=key).random_raw()) >> 1
