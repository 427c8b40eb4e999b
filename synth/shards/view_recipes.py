"""Recipes of views: what their numbers mean, and which numbers are allowed. Imports neither torch nor numpy: the
command line reads it.

A recipe is a row of eleven integers. `synth.shards.views` makes pixels of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# The columns of a recipe.
PARTNER, SHARE = 0, 1  # the partner's image number; the image's own share in units of 1/WHOLE, the larger one
DOWN, RIGHT, PARTNER_DOWN, PARTNER_RIGHT = 2, 3, 4, 5  # shifts in pixels; the border is repeated
TOP, LEFT, HEIGHT, WIDTH = 6, 7, 8, 9  # the box that is cropped from the mixture and resized to the whole side
MIRRORED = 10  # 1 or 0
COLUMNS = 11

WHOLE = 256  # the share of an unmixed image
SHIFT = 0.1  # largest shift, as a share of the side: 3 pixels at 28 or 32, 22 at 224


def largest_shift(side: int) -> int:
    """The largest shift of an image along a side of this length, in pixels."""
    return math.floor(SHIFT * side + 0.5)


def first_fault(views: np.ndarray, numbers: np.ndarray, size: tuple[int, int]) -> tuple[int, str] | None:
    """The first image with a recipe that no shard may hold, as its row and what is wrong; None if all are allowed.

    Args:
        views: int32 (N, V, COLUMNS).
        numbers: (N,), the numbers of the shard's images.
        size: height and width of the images.
    """
    import numpy as np

    height, width = size
    wide = views.astype(np.int64)  # sums of two columns do not overflow
    bounds = [
        ("share", wide[..., SHARE], WHOLE // 2, WHOLE),
        ("mirror mark", wide[..., MIRRORED], 0, 1),
    ]
    for column, side in ((DOWN, height), (RIGHT, width), (PARTNER_DOWN, height), (PARTNER_RIGHT, width)):
        bounds.append(("shift", wide[..., column], -largest_shift(side), largest_shift(side)))
    for begin, length, side in ((TOP, HEIGHT, height), (LEFT, WIDTH, width)):
        bounds.append(("crop's side", wide[..., length], 1, side))
        bounds.append(("crop's begin", wide[..., begin], 0, side - 1))
        bounds.append(("crop's end", wide[..., begin] + wide[..., length], 1, side))
    foreign = ~np.isin(wide[..., PARTNER], numbers)
    faults = [(foreign, wide[..., PARTNER], "partner {} is not an image of the shard")]
    for name, values, least, most in bounds:
        wrong = (values < least) | (values > most)
        faults.append((wrong, values, f"{name} {{}} is not within {least} and {most}"))
    for wrong, values, words in faults:
        if wrong.any():
            row, view = np.argwhere(wrong)[0]
            return int(row), f"view {view + 1}: its " + words.format(values[row, view])
    return None
