import io

import numpy as np
from PIL import Image

from synth.basics.grids import GAP, Row, Text, draw_rows, png_bytes


def test_images_stand_in_rows_behind_the_margin_and_are_enlarged_without_smoothing() -> None:
    grey, colour = np.zeros((1, 2, 2), np.uint8), np.full((3, 2, 2), 9, np.uint8)
    colour[:, 0, 1] = (200, 100, 50)
    grid = draw_rows([Row([grey], []), Row([grey, colour], [])], columns=2, height=4, width=4, margin=10)
    pixels = np.asarray(grid)
    assert pixels.shape == (2 * (4 + GAP), 10 + 2 * (4 + GAP), 3)
    assert (pixels[:4, 10:14] == 0).all()
    left, top = 10 + 4 + GAP, 4 + GAP
    assert (pixels[top : top + 2, left + 2 : left + 4] == (200, 100, 50)).all()
    assert (pixels[top + 2 : top + 4, left : left + 4] == 9).all()
    assert (pixels[:4, left:] == 255).all()  # the first row has one image


def test_texts_are_drawn_in_the_margin_of_their_row() -> None:
    grid = draw_rows([Row([], []), Row([], [Text(1, 2, "seven", "red")])], 1, height=20, width=20, margin=60)
    pixels = np.asarray(grid)
    assert (pixels[:22] == 255).all()
    assert pixels[22:, :60, 0].min() == 255
    assert pixels[22:, :60, 1].min() < 128  # red
    assert (pixels[:, 60:] == 255).all()


def test_a_png_holds_the_pixels() -> None:
    grid = draw_rows([Row([np.full((1, 3, 3), 77, np.uint8)], [])], 1, 3, 3, 0)
    for optimise in (False, True):
        with Image.open(io.BytesIO(png_bytes(grid, optimise))) as read:
            assert np.array_equal(np.asarray(read), np.asarray(grid))
