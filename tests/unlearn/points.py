"""A case of points for tests: scikit-learn's digits, of which some have a wrong label."""

from __future__ import annotations

from pathlib import Path

from unlearn.data import DataSource
from unlearn.drawn_points import draw_points, write_points

DIGITS = tuple("0123456789")


def case(folder: Path, count: int = 8, wrong: float = 0.5, seed: int = 0) -> Path:
    """A folder of points from the digits' training images; its path."""
    write_points(*draw_points(DataSource("digits").load("train"), count, wrong, seed), folder)
    return folder
