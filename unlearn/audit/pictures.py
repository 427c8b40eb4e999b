"""A picture of a set of images: one row per class."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

NAMES, GAP, SMALLEST = 84, 2, 28  # pixels: width of the names' column, gap between images, smallest side of an image


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
    grid = Image.new("RGB", (NAMES + columns * (cell + GAP), len(classes) * (cell + GAP)), "white")
    draw = ImageDraw.Draw(grid)
    for row, label in enumerate(classes):
        top = row * (cell + GAP)
        draw.text((2, top + cell // 2 - 6), class_names[label][:12], fill="black")
        for column, image in enumerate(images[labels == label].numpy()):
            pixels = image[0] if len(image) == 1 else image[:3].transpose(1, 2, 0)
            tile = Image.fromarray(np.ascontiguousarray(pixels)).resize((cell, cell), Image.Resampling.NEAREST)
            grid.paste(tile, (NAMES + column * (cell + GAP), top))
    buffer = io.BytesIO()
    grid.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
