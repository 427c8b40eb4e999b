"""The unlearning run again, from the settings that its report has: the student, and whether its bytes are the same."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from synth.basics.errors import UserError
from synth.checkpoint.file import refuse_untrusted
from unlearn.methods import METHODS
from unlearn.report.places import run_index_of
from unlearn.report.replay.device import device_of
from unlearn.report.verify.chain import index_in
from unlearn.report.verify.checks import Check
from unlearn.run import carry_out as runs
from unlearn.run.folder import STUDENT
from unlearn.settings import LoopSettings


def remake(
    record: Mapping[str, Any],
    out: Path,
    teacher: Path,
    shards: str | None,
    arch: str | None,
    say: Callable[[str], None],
    device: str | None = None,
) -> tuple[Path, bool]:
    """Make the student again in the folder `out`, on the run's device or another.

    Returns:
        the new student, and whether it is the audited one byte for byte: so on one kind of machine with as many threads.

    Raises:
        UserError: the report doesn't hold the run's settings, they are none of this version's, or they name code that is
            not the user's own `arch`.
    """
    run = record["origin"]["run"]
    if run is None:
        raise UserError("the report knows no run that made the student: replay without --retrain")
    settings = run["settings"]
    method, forget, seed = settings.get("method"), tuple(settings.get("forget", ())), settings.get("seed", 0)
    device = device_of(device or settings.get("device") or run["provenance"].get("device") or "cpu")
    check_run_shards(record, shards)
    model = record["models"]["student"]
    for named in (model["architecture"], settings.get("student_arch")):
        refuse_untrusted(str(named), arch, "the report")
    if method not in METHODS.names():
        raise UserError(f"the report's method is {str(method)[:40]!r}, which this version doesn't know")
    needs_teacher = METHODS.find(method).NEEDS_TEACHER
    if shards is None and not needs_teacher:
        raise UserError("the report names no shards: name them with --run-shards")
    try:
        request = runs.Request(
            method=method,
            settings=taken(METHODS.find(method).SETTINGS, settings),
            loop=taken(LoopSettings, settings) if needs_teacher else METHODS.find(method).LOOP,
            teacher=teacher if needs_teacher else None,
            trusted_architecture=arch,
            shards=shards,
            forget=forget,
            out=out,
            seed=seed,
            device=device,
            student_arch=settings.get("student_arch") if needs_teacher else model["architecture"],
            student_width=settings.get("student_width") if needs_teacher else model["width"],
        )
        runs.unlearn(request, say)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the run's settings are not this version's ({error}): replay it with the version it names"
        ) from error
    student = out / STUDENT
    return student, hashlib.sha256(student.read_bytes()).hexdigest() == model["sha256"]


def check_run_shards(record: Mapping[str, Any], shards: str | None) -> None:
    """Raise UserError where other shards are there than those that the run read: they would make another student."""
    wanted = run_index_of(record)
    if shards is None or wanted is None:
        return
    there = index_in(shards, "", "--run-shards")
    if isinstance(there, Check):
        raise UserError(there.why)
    if there.sha256 != wanted:
        raise UserError(
            f"the shards in {shards} are not those that the student's run read: name those with --run-shards"
        )


def taken(settings_class: Any, values: Mapping[str, Any]) -> Any:
    """The settings of that class among the values."""
    return settings_class(**{f.name: values[f.name] for f in dataclasses.fields(settings_class) if f.name in values})
