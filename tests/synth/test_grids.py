import io

import numpy as np
import pytest
from PIL import Image

from synth.basics import fonts
from synth.basics.fonts import drawable
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


@pytest.mark.parametrize("name", ["кошка", "γάτα", "Größe", "חתול"])
def test_names_in_many_scripts_are_drawn_and_not_as_boxes(name: str) -> None:
    assert drawable(name)[0] == name
    grid = draw_rows([Row([], [Text(1, 2, name)])], 1, 20, 20, 60)
    boxes = draw_rows([Row([], [Text(1, 2, "\ufffe" * len(name))])], 1, 20, 20, 60)
    assert np.asarray(grid).tobytes() != np.asarray(boxes).tobytes()
    assert np.asarray(grid)[:, :60].min() < 128


def test_what_no_font_can_draw_is_escaped_and_stays_in_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "system_fonts", list)
    assert drawable("猫 cat")[0] == "\\u732b cat"
    grid = np.asarray(draw_rows([Row([], [Text(1, 2, "猫猫猫猫猫猫猫猫")])], 1, 20, 20, 60))
    assert (grid[:, 60:] == 255).all()
    assert grid[:, :60].min() < 128


def test_a_plain_name_is_drawn_by_the_font_that_it_always_had() -> None:
    assert drawable("cat 3")[1] is None
