"""Images in a grid, one row per class."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from synth.basics.fonts import drawable, fitting

GAP = 2  # pixels between images


@dataclass(frozen=True)
class Text:
    """A line of text; `left` and `top` are pixels from the upper left corner of its row."""

    left: int
    top: int
    words: str
    colour: str = "black"


@dataclass(frozen=True)
class Row:
    """The images of a row, uint8 (C, H, W) with C = 1 or 3, and the texts in the margin before them."""

    images: Iterable[np.ndarray]
    texts: Sequence[Text]


def draw_rows(rows: Sequence[Row], columns: int, height: int, width: int, margin: int) -> Image.Image:
    """The grid as an image.

    Args:
        columns: images that the widest row has room for.
        height: of each image in the grid, in pixels; images are enlarged without smoothing.
        width: likewise.
        margin: pixels to the left of the images, for the texts.
    """
    grid = Image.new("RGB", (margin + columns * (width + GAP), len(rows) * (height + GAP)), "white")
    draw = ImageDraw.Draw(grid)
    for number, row in enumerate(rows):
        top = number * (height + GAP)
        for text in row.texts:
            words, font = drawable(text.words)
            words = fitting(words, font, margin - text.left)
            draw.text((text.left, top + text.top), words, fill=text.colour, font=font)
        for column, image in enumerate(row.images):
            pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            tile = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.NEAREST)
            grid.paste(tile, (margin + column * (width + GAP), top))
    return grid


def png_bytes(image: Image.Image, optimise: bool = False) -> bytes:
    """The image as a PNG; `optimise` takes longer and gives fewer bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=optimise)
    return buffer.getvalue()
