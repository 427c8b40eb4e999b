"""Images in a grid, one row per class."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from synth.basics.fonts import drawable, fitting

PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins
GAP = 2  # pixels between images
WORD = 12  # pixels of height for the words below images


@dataclass(frozen=True)
class Text:
    """A line of text; `left` and `top` are pixels from the upper left corner of its row."""

    left: int
    top: int
    words: str
    colour: str = "black"


@dataclass(frozen=True)
class Row:
    """The images of a row, uint8 (C, H, W) with C = 1 or 3, the texts in the margin before them, and a word below each.

    No row of a grid has words below, or each has.
    """

    images: Iterable[np.ndarray]
    texts: Sequence[Text]
    below: Sequence[str] = ()


def draw_rows(rows: Sequence[Row], columns: int, height: int, width: int, margin: int) -> Image.Image:
    """The grid as an image.

    Args:
        columns: images that the widest row has room for.
        height: of each image in the grid, in pixels; images are enlarged without smoothing.
        width: likewise.
        margin: pixels to the left of the images, for the texts.
    """
    pitch = row_height(height, any(row.below for row in rows))
    grid = Image.new("RGB", (margin + columns * (width + GAP), len(rows) * pitch), "white")
    draw = ImageDraw.Draw(grid)
    for number, row in enumerate(rows):
        top = number * pitch
        for text in row.texts:
            words, font = drawable(text.words)
            words = fitting(words, font, margin - text.left)
            draw.text((text.left, top + text.top), words, fill=text.colour, font=font)
        for column, image in enumerate(row.images):
            pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            tile = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), Image.Resampling.NEAREST)
            grid.paste(tile, (margin + column * (width + GAP), top))
        for column, word in enumerate(row.below):
            words, font = drawable(word)
            draw.text((margin + column * (width + GAP), top + height), words, fill="dimgray", font=font)
    return grid


def row_height(height: int, words: bool) -> int:
    """The pixels from one row to the next, for images of this height, with or without words below them."""
    return height + GAP + (WORD if words else 0)


def png_bytes(image: Image.Image, optimise: bool = False) -> bytes:
    """The image as a PNG; `optimise` takes longer and gives fewer bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=optimise)
    return buffer.getvalue()
