"""Tables as plain data for the templates, and how a measurement's name, values and status are shown in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unlearn.auditing.judgement.verdict import INSIDE, MORE, NOT_EVALUATED
from unlearn.auditing.record.record import MODEL

Record = Mapping[str, Any]
COLOURS = {INSIDE: "inside", MORE: "more", NOT_EVALUATED: "unknown"}  # of a status, as CSS classes
LONG = 32  # characters of a word that may be broken anywhere, such as a hash


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, smaller text below it, and a CSS class."""

    text: str
    below: str = ""
    colour: str = ""
    code: bool = False  # a hash or the like
    folded: bool = False  # shown on demand


NOTHING = Cell("-")


@dataclass(frozen=True)
class Table:
    """Each row starts with its heading."""

    caption: str
    header: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    words: bool = False  # text, set to the left; otherwise numbers
    notes: Sequence[tuple[str, str]] = field(default=())  # words to explain, and their explanations


def text_row(heading: str, *cells: object) -> tuple[str, list[Cell]]:
    return heading, [NOTHING if cell is None else Cell(str(cell)) for cell in cells]


def facts(caption: str, values: Record) -> Table:
    """Names and values. The name of a nested value is joined by dots."""
    rows = [(name, [fact(value)]) for name, value in flat(values)]
    return Table(caption, ["", "value"], rows, words=True)


def fact(value: object) -> Cell:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return Cell(text, code=isinstance(value, str) and len(text) >= LONG)


def flat(values: Record, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return found


def title_of(measurement: Record) -> str:
    unit = f", {measurement['unit']}" if measurement["unit"] else ""
    synthetic = " (synthetic images)" if measurement["source"] == "synthetic" else ""
    return f"{measurement['title']}{unit}{synthetic}"


def reading_cell(measurement: Record, subject: str, record: Record) -> Cell:
    """The mean, and below it the interval of the mean. A single value has none."""
    reading = measurement["readings"].get(subject)
    if reading is None:
        return NOTHING
    low, high, unit = reading["low"], reading["high"], measurement["unit"]
    below = between((low, high), unit) if low < high else ""
    return Cell(cell_text(reading["mean"], unit), below, colour_of(measurement, record) if subject == MODEL else "")


def between(interval: Sequence[float], unit: str) -> str:
    return " to ".join(cell_text(end, unit) for end in interval)


def cell_text(value: float, unit: str) -> str:
    """The number with as many decimals as all numbers of its unit, so that a column of them is aligned."""
    decimals = 1 if unit in ("%", "points", "steps") else 2
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.{decimals}f}"


def finding_of(measurement: Record, record: Record) -> Record | None:
    """What the verdict says about the measurement; None where it is not judged."""
    return next((f for f in record["verdict"]["findings"] if f["name"] == measurement["name"]), None)


def colour_of(measurement: Record, record: Record) -> str:
    finding = finding_of(measurement, record)
    return COLOURS.get(finding["status"], "other") if finding else "unknown"
