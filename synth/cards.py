"""What a card has to say of a classifier, whoever wrote it: a checkpoint's or an index's. No torch here."""

from __future__ import annotations

import math
import re

SHA256 = re.compile("[0-9a-f]{64}")


def check_classifier(
    *,
    architecture: str,
    width: float,
    class_names: tuple[str, ...],
    input_shape: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    """Raise ValueError where no classifier is like that, or where a text isn't fit for a terminal."""
    channels, height, side = input_shape
    if not (1 <= channels <= 64 and 1 <= height <= 4096 and height == side):
        raise ValueError(f"input shape {list(input_shape)} is not (channels, side, side)")
    if not 2 <= len(class_names) <= 100_000:
        raise ValueError(f"a classifier needs 2 classes or more, and 100,000 at most, not {len(class_names)}")
    if not all(isinstance(name, str) and name.isprintable() and len(name) <= 200 for name in class_names):
        raise ValueError("class names must be printable text of at most 200 characters")
    if not architecture.isprintable() or len(architecture) > 200:
        raise ValueError("the architecture must be printable text of at most 200 characters")
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"mean and std need {channels} values, one a channel")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError("mean and std must be finite, std above 0")
    if not 0 < width <= 16:
        raise ValueError(f"width {width} is not within (0, 16]")


def sha256_in(raw: object, whose: str) -> str:
    """The hash that a file from elsewhere tells. Raises ValueError where it is none."""
    if not isinstance(raw, str) or not SHA256.fullmatch(raw):
        raise ValueError(f"{whose} sha256 is not one")
    return raw
