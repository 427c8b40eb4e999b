"""A table of paths and classes: a CSV file with a header such as `path,label`, and perhaps a column `split`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from synth.basics.errors import UserError
from synth.basics.regular_files import read_regular
from unlearn.data_sets.reading.found import LARGEST_FILE, SPLITS, Entry, Found, names_in_order

LARGEST_TABLE = 2**30  # bytes
PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "img_path")
CLASSES = ("label", "class", "class_name", "classname", "label_name", "category", "target", "y")
SPLIT = ("split", "subset", "set", "partition")


def find_in_table(table: Path, split: str | None) -> Found:
    """The images of one split of a CSV file, or of all splits. Paths are relative to the file's folder.

    Without a column for the split, all rows are test images.

    Raises:
        UserError: the file cannot be read, lacks a column or a value, or has no row of the split.
    """
    entries = [entry(path, text) for path, text in rows_in(table, split, CLASSES)]
    return Found(place=str(table), entries=entries, class_names=names_in_order(entries), all_classes=False)


def rows_in(table: Path, split: str | None, known: Sequence[str]) -> list[tuple[Path, str]]:
    """The path of each image of the split, and what stands in the first column with a known name."""
    try:
        text = read_regular(table, LARGEST_TABLE).decode("utf-8-sig")
        header, *rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text))
    except OSError as error:
        raise UserError(f"cannot read the table {table}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise UserError(f"{table} is no CSV file in UTF-8 with a header: save it as one") from error
    names = [name.strip().lower() for name in header]
    path, label = column(names, PATHS, table), column(names, known, table)
    by_split = next((names.index(name) for name in SPLIT if name in names), None)
    rows = [row for row in rows if any(map(str.strip, row))]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header) or not row[path].strip() or not row[label].strip():
            raise UserError(f"row {number} of {table} has no {names[path]} or no {names[label]}: complete it")
    chosen = rows if by_split is None or split is None else rows_of(rows, by_split, split)
    if split is None and not chosen:
        raise UserError(f"{table} has no row: write one for each image")
    if not chosen or (by_split is None and split not in ("test", None)):
        raise UserError(
            f"{table} has no {split} images: add a column 'split' whose values are train or test"
            + (", or name data with training images" if split == "train" else "")
        )
    found = [(table.parent / row[path].strip(), row[label].strip()) for row in chosen]
    missing = next((file for file, _ in found if not os.path.exists(file)), None)
    if missing is not None:
        raise UserError(
            f"{table} names the image {missing}, which is not there: correct the path, which is relative to the "
            "table's folder, or remove the row"
        )
    return found


def entry(path: Path, class_name: str) -> Entry:
    return Entry(str(path), partial(read_regular, path, LARGEST_FILE), class_name)


def delimiter_of(text: str) -> str:
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)


def column(names: Sequence[str], known: Iterable[str], table: Path) -> int:
    """The number of the first column with a known name. Raises UserError if there is none."""
    for name in known:
        if name in names:
            return names.index(name)
    raise UserError(f"{table} has no column {' or '.join(list(known)[:4])}: its first line must name the columns")


def rows_of(rows: Sequence[Sequence[str]], by_split: int, split: str) -> list[Sequence[str]]:
    """The rows of the split, under the first of its names that occurs."""
    for name in SPLITS[split]:
        if chosen := [row for row in rows if row[by_split].strip().lower() == name]:
            return chosen
    return []
