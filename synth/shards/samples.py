"""The samples of a shard in memory, and limits of a shard's size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST_MEMBER = 64 * 2**20  # bytes
LARGEST_SHARD = 8 * 2**30  # bytes, as a file and decoded
END_OF_TAR = 12 * 2**10  # bytes of a shard at most after its last sample: two empty blocks, and a record's padding
SAMPLE_OVERHEAD = 8 * 2**10  # bytes of a sample at most beside pixels and logits: headers, padding, json
LARGEST_NUMBER = 1e300  # in a sample's json; a comparison with it excludes NaN too
PIXEL_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Samples:
    """Samples in the order of their keys."""

    keys: list[str]
    images: np.ndarray  # uint8 (N, C, H, W)
    labels: np.ndarray  # int64 (N,)
    logits: np.ndarray  # float32 (N, K)
    records: list[dict[str, Any]]  # each sample's json

    @property
    def partners(self) -> np.ndarray:
        """int64 (N,): the class of a blend's partner, which has the smaller share; the own class of an image."""
        pairs = zip(self.records, self.labels.tolist(), strict=True)
        return np.array([record.get("partner_class", label) for record, label in pairs], dtype=np.int64)

    @property
    def partner_images(self) -> np.ndarray:
        """int64 (N,): the number of a blend's partner, which has the smaller share; -1 for an image."""
        return np.array([record.get("partner", -1) for record in self.records], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.keys)


def largest_size(samples: int, image_shape: tuple[int, int, int], num_classes: int) -> int:
    """An upper bound of a shard's bytes, as a file and decoded."""
    return samples * largest_sample(image_shape, num_classes) + END_OF_TAR


def largest_sample(image_shape: tuple[int, int, int], num_classes: int) -> int:
    """An upper bound of a sample's bytes, in its shard and decoded. The worst case is pixels of noise, which grow a
    little as PNG.
    """
    pixels = math.prod(image_shape)
    return pixels + pixels // 100 + 4 * num_classes + SAMPLE_OVERHEAD
