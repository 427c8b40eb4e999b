"""A setting over a range, with several seeds: one run folder each, a CSV, and a plot with both accuracies."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import statistics
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from synth.basics.errors import HopelessError, UsageError
from synth.basics.settings import check
from synth.shards.store import Folder
from unlearn.data import DataSource, LabelledImages
from unlearn.evaluate import evaluate
from unlearn.run.folder import PROVENANCE, STUDENT, note_judgement

RESULTS, PLOT = "sweep.csv", "sweep.svg"


@dataclass(frozen=True)
class Range:
    """One setting and the values that it takes."""

    name: str  # as a flag has it, without dashes in front
    values: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Range:
        """`entropy=0.2:2.0:10` is ten values from 0.2 to 2.0, ends included; `steps=100,200,400` a list."""
        name, separator, values = text.partition("=")
        try:
            if not separator or not name:
                raise ValueError
            if ":" not in values:
                return cls(name, tuple(float(written(float(value))) for value in values.split(",")))
            first, last, count = values.split(":")
            low, high, number = float(first), float(last), int(count)
            if number < 2:
                raise ValueError
            return cls(name, tuple(float(written(low + (high - low) * n / (number - 1))) for n in range(number)))
        except ValueError:
            raise UsageError(
                f"'{text}' is no range: write it like entropy=0.2:2.0:10 (first:last:count) or steps=100,200"
            ) from None

    def check(self, method: str, *settings_classes: type) -> Range:
        """The range with its values of the setting's own type. Raises UsageError where the method has no such number to set, or
        the setting doesn't take one of them.
        """
        if self.name == "seed":
            raise UsageError("a sweep takes its seeds by --seeds 0,1: name a setting with --over")
        names = {
            field.name.replace("_", "-"): (int in kinds, field)
            for settings_class in settings_classes
            for field in dataclasses.fields(settings_class)
            if {int, float} & (kinds := kinds_of(settings_class, field.name))
        }
        if self.name not in names:
            raise UsageError(f"{method} has no setting {self.name}: choose {', '.join(names)}")
        whole, field = names[self.name]
        broken = [value for value in self.values if whole and not value.is_integer()]
        if broken:
            raise UsageError(f"{self.name} takes whole numbers, not {written(broken[0])}")
        values = tuple(map(int if whole else float, self.values))
        try:
            for value in values:
                check(self.name, value, field.metadata)
        except ValueError as error:
            raise UsageError(f"{error}") from error
        return Range(self.name, values)


def kinds_of(settings_class: type, name: str) -> set[type]:
    """The types that a setting takes."""
    kind = typing.get_type_hints(settings_class)[name]
    return {kind, *typing.get_args(kind)}


def written(value: float) -> str:
    """As a flag takes it, and as the run's folder is named: to twelve digits, so that a sum of tenths is read as one."""
    return f"{value}" if isinstance(value, int) else f"{value:.12g}"


@dataclass(frozen=True)
class Row:
    """One run's accuracies on real test images, per cent; None where the run left no student, and `ended` says why."""

    value: float
    seed: int
    retain: float | None
    forget: float | None
    step: int = 0  # that the student comes from
    seconds: float = 0.0
    ended: str = ""


def sweep(
    over: Range,
    seeds: Sequence[int],
    out: Path,
    run: Callable[[Path, str, int], None],
    judge: Callable[[Path], tuple[float, float | None]],
    say: Callable[[str], None],
) -> list[Row]:
    """Run every value with every seed, and rewrite the CSV and the plot after each.

    Args:
        run: makes the run in a folder, for the value as a flag takes it and the seed; a complete run it leaves as it is.
        judge: the retain and forget accuracy of a student.

    Raises:
        HopelessError: no run left a student.
    """
    folder = Folder(out)
    folder.create()
    rows: list[Row] = []
    for value in over.values:
        for seed in seeds:
            place = out / f"{over.name}-{written(value)}" / f"seed-{seed}"
            rows.append(one_run(value, seed, place, run, judge))
            say(
                f"{over.name} {written(value)}, seed {seed}: retain {percent(rows[-1].retain)} %, forget {percent(rows[-1].forget)} %"
            )
            folder.write(RESULTS, csv_of(over.name, rows).encode())
            folder.write(PLOT, plot(over.name, rows).encode())
    if all(row.retain is None for row in rows):
        raise HopelessError(f"no run left a student; the last one: {rows[-1].ended}")
    return rows


def one_run(
    value: float,
    seed: int,
    place: Path,
    run: Callable[[Path, str, int], None],
    judge: Callable[[Path], tuple[float, float | None]],
) -> Row:
    try:
        run(place, written(value), seed)
    except HopelessError as error:  # a result too
        if not (place / PROVENANCE).exists():
            return Row(value, seed, None, None, ended=str(error))
    facts = json.loads((place / PROVENANCE).read_text())
    retain, forget = judge(place / STUDENT)
    return Row(
        value, seed, retain, forget, facts.get("student_step", 0), facts.get("seconds", 0.0), facts.get("ended", "")
    )


def csv_of(name: str, rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name, "seed", "retain", "forget", "student_step", "seconds", "ended"])
    for r in rows:
        retain, forget = ("" if a is None else f"{a:.4f}" for a in (r.retain, r.forget))
        writer.writerow([written(r.value), r.seed, retain, forget, r.step, f"{r.seconds:.1f}", r.ended])
    return text.getvalue()


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


WIDTH, HEIGHT, MARGIN = 640, 400, 56
SERIES = (("retain", "#1f6f8b"), ("forget", "#c1432e"))


def plot(name: str, rows: Sequence[Row]) -> str:
    """An SVG: mean retain and forget accuracy over the setting, a dot for each run."""
    low, high = min(r.value for r in rows), max(r.value for r in rows)

    def at(value: float, accuracy: float) -> tuple[float, float]:
        share = (value - low) / (high - low) if high > low else 0.5
        return MARGIN + share * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - accuracy / 100 * (HEIGHT - 2 * MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for accuracy in range(0, 101, 20):
        _, y = at(low, accuracy)
        parts.append(f'<path d="M{MARGIN} {y:.1f}H{WIDTH - MARGIN}" stroke="#ddd"/>')
        parts.append(f'<text x="{MARGIN - 8}" y="{y + 4:.1f}" text-anchor="end">{accuracy} %</text>')
    for value in sorted({r.value for r in rows}):
        x, y = at(value, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(name)}</text>')
    for index, (series, colour) in enumerate(SERIES):
        points = [(r.value, getattr(r, series)) for r in rows if getattr(r, series) is not None]
        means = {v: statistics.fmean(a for w, a in points if w == v) for v in sorted({v for v, _ in points})}
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, means.keys(), means.values()))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y in (at(v, a) for v, a in points):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        parts.append(f'<text x="{MARGIN + 120 * index}" y="28" fill="{colour}">{series} accuracy</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def judge(
    student: Path,
    source: DataSource,
    images: LabelledImages,
    forget: tuple[int, ...],
    trusted_architecture: str | None,
    device: str,
) -> tuple[float, float | None]:
    """A run's student's retain and forget accuracy on the source's test images, which its provenance tells from then on."""
    result = evaluate({"student": student}, source, forget, trusted_architecture, device, images)[0]["student"]
    note_judgement(student.parent, {"data": source.name, "split": "test", "images": result.images})
    return result.retain, result.forget
