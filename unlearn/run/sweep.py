"""One setting over a range, with several seeds: a run folder for each, a CSV, and a plot of both accuracies."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
import statistics
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.basics import drawing
from synth.basics.errors import HopelessError, UsageError
from synth.basics.progress import Say
from synth.basics.settings import check
from synth.basics.way_on import WayOn
from synth.checkpoint.class_choice import Classes
from synth.checkpoint.file import STUDENT, read_card
from synth.run.lock import locked
from synth.shards.index import read_index
from synth.shards.store import Folder
from unlearn import data_sets
from unlearn.data import DataSource, LabelledImages
from unlearn.evaluation import Evaluation, evaluate
from unlearn.methods.student import teacher_card
from unlearn.run import rounds
from unlearn.run.folder import PROVENANCE, note_judgement, read_provenance
from unlearn.run.request import Request
from unlearn.samples.cache import open_shards

RESULTS, PLOT = "sweep.csv", "sweep.svg"
WAY_ON = WayOn(
    command="unlearn sweep",
    again="start the same command again, and the sweep goes on where it was",
    anew="remove that folder, and start the same command again",
    replaces=False,
    resumes=False,
)
Value = float | str  # text for a setting such as the name of a layer
Judge = Callable[[Path], tuple[float, float | None]]


@dataclass(frozen=True)
class Range:
    """One setting and its values."""

    name: str  # as in its flag, without the dashes in front
    values: tuple[Value, ...]

    @classmethod
    def parse(cls, text: str) -> Range:
        """`entropy=0.2:2.0:10` is ten values from 0.2 to 2.0, both included; `steps=100,200,400` is a list, and so is
        `keep-layers=layer1,60%`.

        Raises UsageError if the text is neither.
        """
        name, separator, values = text.partition("=")
        try:
            if not separator or not name:
                raise ValueError
            if ":" not in values:
                return cls(name, numbers_or_names(values.split(",")))
            first, last, count = values.split(":")
            low, high, number = float(first), float(last), int(count)
            if number < 2:
                raise ValueError
            return cls(name, tuple(float(written(low + (high - low) * n / (number - 1))) for n in range(number)))
        except ValueError:
            raise UsageError(
                f"'{text}' is not a range: write it like entropy=0.2:2.0:10 (first:last:count) or steps=100,200"
            ) from None

    def check(self, method: str, *settings_classes: type) -> Range:
        """The range with values of the setting's own type.

        Raises UsageError if the method has no such setting, if it is neither a number nor text, or if it does not
        accept a value.
        """
        if self.name == "seed":
            raise UsageError("the seeds of a sweep are given by --seeds 0,1: name a setting with --over")
        names = {
            field.name.replace("_", "-"): (kinds, field)
            for settings_class in settings_classes
            for field in dataclasses.fields(settings_class)
            if {int, float, str} & (kinds := kinds_of(settings_class, field.name))
        }
        if self.name not in names:
            raise UsageError(f"{method} has no setting {self.name} to go over: choose {', '.join(names)}")
        kinds, field = names[self.name]
        values = tuple(self.as_one_of(kinds, value) for value in self.values)
        try:
            for value in values:
                check(self.name, value, field.metadata)
        except ValueError as error:
            raise UsageError(f"{error}") from error
        return Range(self.name, values)

    def as_one_of(self, kinds: set[type], value: Value) -> Value:
        """The value in the type of its setting. Raises UsageError if it has another type."""
        if str in kinds:
            return written(value)
        if isinstance(value, str):
            raise UsageError(f"{self.name} must be a number, not {value[:80]}")
        if int in kinds and not float(value).is_integer():
            raise UsageError(f"{self.name} must be a whole number, not {written(value)}")
        return int(value) if int in kinds else float(value)


def numbers_or_names(listed: Sequence[str]) -> tuple[Value, ...]:
    """The parts of a list: numbers, or names such as those of layers, or shares such as 60%. Raises ValueError if they
    are none of these.
    """
    try:
        return tuple(float(written(float(value))) for value in listed)
    except ValueError:
        if not all(re.fullmatch(r"[0-9.]+%|[^\W0-9][\w.-]*", value) for value in listed):
            raise
    return tuple(listed)


def kinds_of(settings_class: type, name: str) -> set[type]:
    """The types that a setting may have."""
    kind = typing.get_type_hints(settings_class)[name]
    return {kind, *typing.get_args(kind)}


def written(value: Value) -> str:
    """The value as in a flag and in the name of the run's folder: with twelve digits, so that 0.1 + 0.2 is 0.3."""
    return f"{value:.12g}" if isinstance(value, float) else f"{value}"


@dataclass(frozen=True)
class SweepRow:
    """One run's accuracies on real test images, in per cent. They are None if the run left no student; `ended` says
    why.
    """

    value: Value
    seed: int
    retain: float | None
    forget: float | None
    step: int = 0  # of the check that the student comes from
    seconds: float = 0.0
    ended: str = ""


def sweep(over: Range, seeds: Sequence[int], request: Request, out: Path, judge: Judge, say: Say) -> list[SweepRow]:
    """Run the request with each value and each seed, and write the CSV and the plot again after each run.

    A run that is complete is not repeated, and one that was interrupted goes on.

    Args:
        over: the setting and its values, checked.
        request: what all runs have in common. Its `out`, `part` and `seed` are not used.
        out: the folder of the sweep.
        judge: returns the retain and the forget accuracy of a student's file, in per cent.

    Raises:
        UsageError: a value does not fit the other settings; nothing has been run.
        UserError: another process works on the sweep or on a run of it.
        HopelessError: no run left a student.
    """
    runs = [
        (
            value,
            dataclasses.replace(
                request_with(request, over.name, value),
                seed=seed,
                out=out / part,
                part=part,
                resume=True,
                started_by=WAY_ON,
            ),
        )
        for value in over.values
        for seed in seeds
        for part in [f"{over.name}-{written(value)}/seed-{seed}"]
    ]
    folder = Folder(out, WAY_ON.again)
    rows: list[SweepRow] = []
    with locked(folder, WAY_ON, say) as lock:
        for value, asked in runs:
            row = one_run(value, asked, judge, say)
            rows.append(row)
            accuracies = f"retain {percent_text(row.retain)} %, forget {percent_text(row.forget)} %"
            say(f"{over.name} {written(value)}, seed {row.seed}: {accuracies}")
            lock.check()
            folder.write(RESULTS, csv_of(over.name, rows).encode())
            folder.write(PLOT, plot(over.name, [(r.value, r.retain, r.forget) for r in rows]).encode())
    if all(row.retain is None for row in rows):
        raise HopelessError(f"no run left a student; the last one: {rows[-1].ended}")
    return rows


def request_with(request: Request, name: str, value: Value) -> Request:
    """The request with one of the method's settings, or one of its loop's, set to the value."""
    field = name.replace("-", "_")
    change: dict[str, Any] = {field: value}
    try:
        if has_field(request.settings, field):
            return dataclasses.replace(request, settings=dataclasses.replace(request.settings, **change))
        return dataclasses.replace(request, loop=dataclasses.replace(request.loop, **change))
    except ValueError as error:
        raise UsageError(f"{name} {written(value)}: {error}") from error


def has_field(settings: Any, name: str) -> bool:
    return name in {field.name for field in dataclasses.fields(settings)}


def one_run(value: Value, request: Request, judge: Judge, say: Say) -> SweepRow:
    place = request.out
    try:
        rounds.unlearn(request, say)
    except HopelessError as error:  # a result as well
        if not (place / PROVENANCE).exists():
            return SweepRow(value, request.seed, None, None, ended=str(error))
    facts = read_provenance(place)
    retain, forget = judge(place / STUDENT)
    step, seconds, ended = facts.get("student_step", 0), facts.get("seconds", 0.0), facts.get("ended", "")
    return SweepRow(value, request.seed, retain, forget, step, seconds, ended)


def csv_of(name: str, rows: Sequence[SweepRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name, "seed", "retain", "forget", "student_step", "seconds", "ended"])
    for r in rows:
        retain, forget = ("" if a is None else f"{a:.4f}" for a in (r.retain, r.forget))
        writer.writerow([written(r.value), r.seed, retain, forget, r.step, f"{r.seconds:.1f}", r.ended])
    return text.getvalue()


def percent_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


COLOURS = {"retain": "#0060a0", "forget": "#b84a00"}
MARKERS = {"retain": "o", "forget": "s"}
Point = tuple[Value, float | None, float | None]  # a value, and the retain and the forget accuracy in per cent


def plot(name: str, points: Iterable[Point]) -> str:
    """An SVG of both accuracies over the setting `name`: a mark for each run, and a line through the means."""
    figure, (axis,) = drawing.new_figure("sweep")
    runs = list(points)
    names = list(dict.fromkeys(run[0] for run in runs if isinstance(run[0], str)))
    if names:  # text stands at equal distances, in the order in which it was given
        runs = [(float(names.index(str(run[0]))), *run[1:]) for run in runs]
        axis.set_xticks(range(len(names)), names, fontsize=7, rotation=30, ha="right")
    for index, series in enumerate(COLOURS, start=1):
        measured: dict[float, list[float]] = {}
        for place, accuracy in sorted((float(run[0]), run[index]) for run in runs if run[index] is not None):
            measured.setdefault(place, []).append(float(accuracy or 0))
        values = [value for value, found in measured.items() for _ in found]
        accuracies = [accuracy for found in measured.values() for accuracy in found]
        means = [statistics.fmean(found) for found in measured.values()]
        style: dict[str, Any] = {"color": COLOURS[series], "gid": f"{series}-runs"}
        axis.plot(values, accuracies, linestyle="", marker=MARKERS[series], markersize=4, **style)
        axis.plot(list(measured), means, color=COLOURS[series], label=f"{series} accuracy", gid=f"{series}-mean")
    axis.set_ylim(-3, 103)
    axis.set_xlabel(name)
    axis.set_ylabel("%")
    axis.legend(fontsize=8, frameon=False)
    return drawing.svg(figure, "sweep")


def test_images(source: DataSource, request: Request) -> LabelledImages:
    """The test images that the students will be judged on. A data set of a path takes its shape from the teacher.

    Raises UsageError for a regressor's.
    """
    found = data_sets.find(source.name)
    if found:
        if found.target is not None:
            raise UsageError(f"a sweep compares accuracies, and {source.name} is data for regression")
        return source.load("test")
    if request.teacher is not None:
        card = read_card(request.teacher)
    else:
        assert request.places, "a method needs a teacher or shards"
        card = teacher_card(read_index(open_shards(request.places[0])).card)
    if card.target is not None:
        raise UsageError(f"a sweep compares accuracies, and the teacher predicts a number ({card.target.words})")
    return source.load("test", card)


def judge_on_test_images(
    student: Path,
    source: DataSource,
    images: LabelledImages,
    forget: Classes,
    trusted_architecture: str | None,
    device: str,
) -> tuple[float, float | None]:
    """The retain and the forget accuracy of a run's student on real test images, in per cent.

    The run's provenance records from then on that its student was judged on them.
    """
    result = evaluate({"student": student}, source, forget, trusted_architecture, device, images)[0]["student"]
    assert isinstance(result, Evaluation), "test_images refuses regressors"
    note_judgement(student.parent, {"data": source.name, "split": "test", "images": result.images})
    return result.retain, result.forget
