"""How many real images this process reads. `unlearn.data.load_images` reports every data set that it loads.

An unlearning run promises that it reads none. It counts instead of promising:

    with count_real_images() as real:
        ...
    real.count
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class RealImages:
    """The real images that were read while this object was open."""

    count: int = 0


_open: list[RealImages] = []


@contextmanager
def count_real_images() -> Iterator[RealImages]:
    """Count the real images that this process reads inside the block. Blocks may be nested: each counts for itself.

    An image counts when it is loaded, once for each load, and not when it is used later. Other processes are not
    counted.
    """
    counted = RealImages()
    _open.append(counted)
    try:
        yield counted
    finally:
        _open[:] = [other for other in _open if other is not counted]


def note_real_images(number: int) -> None:
    """Tell every open count that `number` real images were read."""
    for counted in _open:
        counted.count += number


def ranges(rows: Sequence[int]) -> str:
    """Ascending row numbers, written like 0-4,7,9-12."""
    parts: list[list[int]] = []
    for row in rows:
        if parts and row == parts[-1][1] + 1:
            parts[-1][1] = row
        else:
            parts.append([row, row])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in parts)
