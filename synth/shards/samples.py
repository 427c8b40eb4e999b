"""The samples of a shard in memory, what their index says of each, and limits of a shard's size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from synth.checkpoint.target import Target
from synth.shards.plan import PNG
from synth.shards.view_recipes import COLUMNS

LARGEST_MEMBER = 64 * 2**20  # bytes
LARGEST_SHARD = 8 * 2**30  # bytes, as a file and decoded
END_OF_TAR = 12 * 2**10  # bytes of a shard at most after its last sample: two empty blocks, and a record's padding
SAMPLE_OVERHEAD = 8 * 2**10  # bytes of a sample at most beside pixels, answers and views: headers, padding, json
LARGEST_NUMBER = 1e300  # in a sample's json; a comparison with it excludes NaN too
PIXEL_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Layout:
    """What every sample of a run has in common."""

    image_shape: tuple[int, int, int]  # C, H, W
    num_classes: int  # K, of the teacher
    views: int = 0  # V
    image_format: str = PNG
    target: Target | None = None  # of a regressor, whose classes are its bins

    @property
    def largest_sample(self) -> int:
        """An upper bound of a sample's bytes, in its shard and decoded. The worst case is pixels of noise, which grow
        a little as PNG.
        """
        pixels = math.prod(self.image_shape)
        answers = 2 * (1 + self.views) * self.num_classes
        return pixels + pixels // 100 + answers + 4 * COLUMNS * self.views + SAMPLE_OVERHEAD

    def largest_shard(self, samples: int) -> int:
        """An upper bound of the bytes of a shard with this number of samples, as a file and decoded."""
        return samples * self.largest_sample + END_OF_TAR


@dataclass(frozen=True)
class Samples:
    """The images of a shard in the order of their keys, with the teacher's answers."""

    keys: list[str]  # nine digits: the image's number in the run
    images: np.ndarray  # uint8 (N, C, H, W), as a reader decodes them
    labels: np.ndarray  # int64 (N,)
    logits: np.ndarray  # float16 (N, 1 + V, K): the teacher's answers on the image and on each of its views
    views: np.ndarray  # int32 (N, V, COLUMNS): recipes (`synth.shards.views`); partners are images of the same shard
    records: list[dict[str, Any]]  # each image's json

    @property
    def numbers(self) -> np.ndarray:
        """int64 (N,): the images' numbers in the run."""
        return np.array([int(key) for key in self.keys], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.keys)
