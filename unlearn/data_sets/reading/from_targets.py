"""Images with targets for a regressor: a CSV file with a header such as `path,age`, or a folder with one."""

from __future__ import annotations

import math
from pathlib import Path

from synth.basics.errors import UserError
from synth.checkpoint.target import Target
from unlearn.data_sets.reading.found import Found
from unlearn.data_sets.reading.from_table import entry, rows_in

TABLE = "targets.csv"  # in a folder
COLUMNS = ("target", "value", "label", "y")  # if no column has the target's own name


def find_targets(place: Path, split: str, target: Target) -> Found:
    """The images of one split. Their `class_name` is the text of their target. Paths are relative to the file's folder.

    Raises:
        UserError: the file cannot be read or lacks a column, or a target is not a number within the target's range.
    """
    table = place / TABLE if place.is_dir() else place
    if place.is_dir() and not table.exists():
        raise UserError(
            f"{place} has no {TABLE}: write one with the columns path, {target.name} and split, one row per image"
        )
    rows = rows_in(table, split, (target.name.strip().lower(), *COLUMNS))
    for number, (path, text) in enumerate(rows, start=1):
        value = number_in(text)
        if not target.low <= value <= target.high:  # NaN is not either
            raise UserError(
                f"{table}: the target of {path.name} ({split} image {number}) is {text[:20]!r}, not a number within "
                f"{target.low:g} and {target.high:g}: correct it, or leave the image out"
            )
    return Found(
        place=str(table),
        entries=[entry(path, text) for path, text in rows],
        class_names=sorted({text for _, text in rows}),
        all_classes=False,
    )


def number_in(text: str) -> float:
    """The number, or NaN."""
    try:
        return float(text)
    except ValueError:
        return math.nan
