"""A picture of a set of images: one row per class."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from synth.basics.grids import Row, Text, draw_rows, png_bytes

NAMES, SMALLEST = 84, 28  # pixels: width of the names' column, smallest side of an image


def draw_classes(images: Tensor, labels: Tensor, class_names: Sequence[str]) -> bytes:
    """A PNG with one row per class: its name, then its images.

    Args:
        images: uint8 (N, C, S, S), C = 1 or 3.
        labels: (N,).
    """
    side = images.shape[-1]
    cell = side * max(1, -(-SMALLEST // side))
    classes = sorted(set(labels.tolist()))
    columns = max(int((labels == c).sum()) for c in classes)
    rows = [Row(images[labels == c].numpy(), [Text(2, cell // 2 - 6, class_names[c][:12])]) for c in classes]
    return png_bytes(draw_rows(rows, columns, cell, cell, NAMES), optimise=True)
