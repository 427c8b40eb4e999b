"""The unlearning run again, from the settings in its report: the student, and whether its bytes are the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from synth.basics.errors import UserError
from synth.basics.regular_files import hash_and_start
from synth.basics.way_on import WayOn
from synth.checkpoint.file import LARGEST_CHECKPOINT, STUDENT, read_card, refuse_untrusted
from unlearn.methods import METHODS, needs_teacher
from unlearn.points import load_points
from unlearn.report.places import run_indexes_of
from unlearn.report.printable import printable
from unlearn.report.replay.device import device_of
from unlearn.report.verify.chain import index_in
from unlearn.report.verify.checks import Check
from unlearn.run import carry_out as runs
from unlearn.run.request import Request
from unlearn.samples.point_settings import PointSettings
from unlearn.settings import LoopSettings


def remake(
    record: Mapping[str, Any],
    out: Path,
    teacher: Path,
    shards: Sequence[str],
    arch: str | None,
    say: Callable[[str], None],
    device: str | None = None,
    started_by: WayOn | None = None,
    points: Path | None = None,
) -> tuple[Path, bool]:
    """Make the student again in the folder `out`, on the run's device or on `device`.

    Args:
        points: the folder of the points that the run forgot, if it forgot any.

    Returns:
        the new student, and whether it is the audited one byte for byte: it is on one kind of machine, with as many
        threads.

    Raises:
        UserError: the report doesn't hold the run's settings, this version can't read them, or they name code that the
        user
            has not named in `arch`.
    """
    run = record["origin"]["run"]
    if run is None:
        raise UserError("the report has no run that made the student: replay it without --retrain")
    settings = run["settings"]
    if "forget_points" in settings:
        check_run_points(settings, teacher, points)
    device = device_of(device or settings.get("device") or run["provenance"].get("device") or "cpu")
    check_run_shards(record, shards)
    model = record["models"]["student"]
    for named in (model["architecture"], settings.get("student_arch")):
        refuse_untrusted(str(named), arch, "the report")
    request = run_request(settings, model, teacher, shards, arch, out, device, points)
    runs.unlearn(dataclasses.replace(request, started_by=started_by), say)
    student = out / STUDENT
    return student, hash_and_start(student, LARGEST_CHECKPOINT)[0] == model["sha256"]


def run_request(
    settings: Mapping[str, Any],
    model: Mapping[str, Any],
    teacher: Path,
    shards: Sequence[str],
    arch: str | None,
    out: Path,
    device: str,
    points: Path | None = None,
) -> Request:
    """The request of the run. `settings` are the run's, and `model` are the record's facts about its student."""
    method = settings.get("method")
    if not isinstance(method, str) or method not in METHODS.names():
        raise UserError(
            f"the report's method is {printable(str(method), 40)!r}, which this version doesn't know: replay it with "
            "the version that the report names"
        )
    module = METHODS.find(method)
    with_teacher = needs_teacher(module)
    if not shards and not with_teacher:
        raise UserError("the report names no shards: name them with --run-shards")
    try:
        return Request(
            method=method,
            settings=taken(module.SETTINGS, settings),
            loop=taken(LoopSettings, settings) if with_teacher else module.LOOP,
            teacher=teacher if with_teacher or settings.get("teacher") else None,
            trusted_architecture=arch,
            start_from=Path(str(settings["start_from"])) if settings.get("start_from") else None,
            shards=shards,
            forget=numbers_of_classes(settings.get("forget", [])),
            forget_points=points if "forget_points" in settings else None,
            points=taken(PointSettings, settings),
            out=out,
            seed=settings.get("seed", 0),
            window=settings.get("window"),
            device=device,
            student_arch=settings.get("student_arch") if with_teacher else model["architecture"],
            student_width=settings.get("student_width") if with_teacher else model["width"],
        )
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the run's settings are not this version's ({error}): replay it with the version that the report names"
        ) from error


def numbers_of_classes(raw: Any) -> tuple[int, ...]:
    """The forget classes in a run's settings. Raises TypeError for anything but a list of whole numbers."""
    if not isinstance(raw, list) or not all(type(number) is int for number in raw):
        raise TypeError("forget is not a list of class numbers")
    return tuple(raw)


def check_run_points(settings: Mapping[str, Any], teacher: Path, folder: Path | None) -> None:
    """Raise UserError where the folder does not hold the points that the run forgot: they would make another student.

    Args:
        settings: the run's.
    """
    if folder is None or not folder.is_dir():
        raise UserError(f"the points that the run forgot are not in {folder}: name their place with --forget-points")
    card = read_card(teacher)
    if load_points(folder, card.input_shape, card.class_names).sha256 != settings.get("points_sha256"):
        raise UserError(f"the points in {folder} are not those that the run forgot: name those with --forget-points")


def check_run_shards(record: Mapping[str, Any], shards: Sequence[str]) -> None:
    """Raise UserError where these are not the shards that the run read: they would make another student."""
    for uri, expected in zip(shards, run_indexes_of(record), strict=False):
        there = index_in(uri, "", "--run-shards")
        if isinstance(there, Check):
            raise UserError(there.why)
        if there.sha256 != expected:
            raise UserError(
                f"the shards in {uri} are not those that the student's run read: name those with --run-shards"
            )


def taken(settings_class: Any, values: Mapping[str, Any]) -> Any:
    """The settings of that class, out of all values."""
    return settings_class(**{f.name: values[f.name] for f in dataclasses.fields(settings_class) if f.name in values})
