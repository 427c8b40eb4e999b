"""Metrics as a CSV file: one row per logged step, one column per value. A value that a step does not have is empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synth.basics.disk import append_to_file, create_folder, one_line_os_errors, write_file
from synth.basics.errors import UsageError
from synth.basics.regular_files import open_regular, read_regular
from unlearn.optimise import Log
from unlearn.run.folder import LARGEST_METRICS, TABLE
from unlearn.run.loggers.logged_run import LoggedRun

PACKAGE = None
TARGET = "FILE"
TARGET_IS_OPTIONAL = True
STEP = "step"


def file_of(target: str | None, run: LoggedRun) -> Path:
    """The file to write. Without a target it is in the run's folder, or beside the checkpoint of a training.

    In a sweep each run has its own file, in a folder with the target's name.
    """
    if target is not None:
        return Path(target).with_suffix("") / f"{run.part}.csv" if run.part else Path(target)
    return run.place / TABLE if run.memory else run.place.with_suffix(".csv")


def check(target: str | None, run: LoggedRun) -> None:
    """Raises UsageError for a file that the run may not replace, and UserError if its folder cannot be created."""
    file = file_of(target, run)
    if target is None and run.memory:
        return  # the run's folder belongs to the run
    create_folder(file.parent)
    if file.exists() and not run.replaces:
        raise UsageError(f"--log-to csv: {file} exists already: replace it with --overwrite, or choose another file")
    if file.exists() and not (file.is_file() and is_log(file)):
        raise UsageError(f"--log-to csv: {file} is not a log of a run: choose another file")


def is_log(file: Path) -> bool:
    """Whether the file is empty, or its first column is the step."""
    with one_line_os_errors(file), open_regular(file, LARGEST_METRICS) as content:
        return content.readline(100).rstrip().split(b",")[0] in (STEP.encode(), b"")


@contextmanager
def opened(target: str | None, run: LoggedRun) -> Iterator[Log]:
    """A log that appends one row per call. Rows of steps that the run will repeat are removed first."""
    file = file_of(target, run)
    rows = [row for row in rows_of(file) if int(row[STEP]) <= run.done]
    columns = list(rows[0]) if rows else [STEP]
    write(file, columns, rows)

    def log(step: int, values: dict[str, float]) -> None:
        row = {STEP: step, **values}
        new = [name for name in row if name not in columns]
        if new:
            columns.extend(new)
            write(file, columns, [*rows_of(file), row])
        else:
            append_to_file(file, text_of(columns, [row], header=False).encode(), run.again)

    yield log


def rows_of(file: Path) -> list[dict[str, Any]]:
    """The rows of a log. A last row that a killed run left incomplete is no row, nor is one without a step."""
    if not file.exists():
        return []
    with one_line_os_errors(file):
        lines = read_regular(file, LARGEST_METRICS).decode(errors="replace").splitlines(keepends=True)
    rows = csv.DictReader(line for line in lines if line.endswith("\n"))
    return [row for row in rows if None not in row and (row.get(STEP) or "").isdigit()]


def write(file: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    write_file(file, text_of(columns, rows, header=True).encode())


def text_of(columns: Sequence[str], rows: Sequence[dict[str, Any]], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
