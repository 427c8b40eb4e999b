"""`unlearn audit`: parse, call, print; no logic."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from synth.basics.errors import UsageError
from synth.basics.progress import Say
from synth.commands.config import config_option
from synth.commands.options import Command, option, settings_flags, settings_from_flags
from synth.commands.printing import echo, note, say
from unlearn.auditing.audit_settings import AuditSettings
from unlearn.commands.options import (
    FROM_ENVIRONMENT,
    PATH,
    WHAT,
    WHERE,
    code_option,
    data_options,
    device_option,
    forget_or_points_option,
    seed_option,
    threads_option,
)


def options_of_audit(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that an audit.json stands for; other files hold options by name."""
    if "request" not in content:
        return content
    request, data = content["request"], content["request"]["data"] or {}
    return {
        **content["settings"],
        "students": [request["student"]],
        "teacher": request["teacher"],
        "references": request["references"],
        "public": request.get("public"),
        "shards": request["shards"],
        "data": data.get("name"),
        "data_root": data.get("root"),
        "image_size": data.get("image_size"),
        "forget": content["forget"],
        "seed": content["seed"],
        "device": content["device"],
    }


@click.command(cls=Command, context_settings=FROM_ENVIRONMENT)
@click.argument("students", metavar="STUDENT...", nargs=-1, required=True, type=PATH)
@option("--teacher", group=WHAT, type=PATH, default="teacher.safetensors", help="the original model")
@forget_or_points_option
@option(
    "--forget-points",
    group=WHAT,
    type=PATH,
    help="folder of single images that STUDENT forgot: an audit of these, with measures of its own",
)
@option(
    "--reference",
    "references",
    group=WHAT,
    type=PATH,
    multiple=True,
    help="a model retrained without the classes; give the option once per model",
)
@option(
    "--public",
    group=WHAT,
    type=PATH,
    help="the weights that the student started from: another model whose answer is known, as it never saw the images",
)
@option(
    "--shards",
    group=WHAT,
    help="run of synth generate to relearn from; without --data, the audit judges on it too",
)
@code_option
@seed_option
@data_options(required=False)
@option(
    "--out",
    group=WHERE,
    type=PATH,
    required=True,
    help="folder for audit.json and pictures; with several students it gets one folder per student",
)
@option("--resume", group=WHERE, is_flag=True, help="continue an interrupted audit with the results that it kept")
@option("--overwrite", group=WHERE, is_flag=True, help="replace an earlier audit in --out")
@config_option("an audit.json", options_of_audit)
@settings_flags({"audit": AuditSettings}, {"audit": "Settings"})
@device_option
@threads_option
def audit(**options: Any) -> None:
    """Measure what STUDENT still knows of the classes. STUDENT is a checkpoint or a run folder.

    The audit runs every measure that the inputs allow. It lists each measure that it could not run, and the input that
    is missing. It judges by stated rules, against models that were retrained without the classes. Several students are
    audited one after the other, each into a folder of its name in --out; the other models are measured once.
    """
    points = options.pop("forget_points")
    if points is not None:
        audit_of_points(points, **options)
        return
    if not options["forget"]:
        raise UsageError("nothing was forgotten: name classes with --forget, or a folder with --forget-points")
    requests = requests_of_audit(note, **options)
    from unlearn.auditing import audit as run
    from unlearn.auditing.text import audit_text

    records = run.audit_each(requests, note)
    for request, record in zip(requests, records, strict=True):
        if len(requests) > 1:
            echo(f"\n{request.student}\n")
        echo(audit_text(record))
        say(f"wrote {request.out / run.AUDIT}")


def audit_of_points(points: Path, **options: Any) -> None:
    """`unlearn audit --forget-points`. Raises UsageError for options that have no effect on it."""
    requests = requests_of_points(note, points, **options)
    from unlearn.auditing.points.audit_points import audit_points
    from unlearn.auditing.points.point_text import points_text

    for request in requests:
        if len(requests) > 1:
            echo(f"\n{request.student}\n")
        echo(points_text(audit_points(request, note)))
        say(f"wrote {request.out / 'audit.json'}")


def requests_of_points(
    tell: Say,
    points: Path,
    students: tuple[Path, ...],
    teacher: Path,
    references: tuple[Path, ...],
    data: str | None,
    data_root: Path | None,
    download: bool,
    image_size: int | None,
    out: Path,
    overwrite: bool,
    arch: str | None,
    seed: int,
    threads: int | None,
    device: str,
    **others: Any,
) -> list[Any]:
    """One request to `unlearn.auditing.points` per student. It works on the CPU."""
    for name in ("forget", "shards", "resume"):
        if others.pop(name, None):
            raise UsageError(f"--{name} has no effect with --forget-points: leave it out")
    needless = next((name for name, value in others.items() if value is not None and name != "confidence"), None)
    if needless:
        raise UsageError(f"--{needless.replace('_', '-')} has no effect with --forget-points: leave it out")
    settings = settings_from_flags(AuditSettings(), others, "audit")
    from synth.basics.device import machine
    from unlearn.auditing.points.audit_points import PointsRequest
    from unlearn.data import DataSource

    machine("cpu", threads)
    source = DataSource(data, data_root, download, image_size, tell) if data else None
    return [
        PointsRequest(
            student=student,
            teacher=teacher,
            points=points,
            references=references,
            data=source,
            out=place,
            settings=settings,
            trusted_architecture=arch,
            seed=seed,
            overwrite=overwrite,
        )
        for student, place in folders(students, out).items()
    ]


def requests_of_audit(
    tell: Say,
    students: tuple[Path, ...],
    teacher: Path,
    forget: tuple[int | str, ...],
    references: tuple[Path, ...],
    public: Path | None,
    data: str | None,
    data_root: Path | None,
    download: bool,
    image_size: int | None,
    shards: str | None,
    out: Path,
    resume: bool,
    overwrite: bool,
    arch: str | None,
    seed: int,
    device: str,
    threads: int | None,
    **flags: Any,
) -> list[Any]:
    """One request to `unlearn.auditing.audit` per student. `tell` gets lines on the data. Raises UsageError where an
    option is wrong.
    """
    settings = settings_from_flags(AuditSettings(), flags, "audit")
    from synth.basics.device import machine
    from unlearn.auditing.audit import Request
    from unlearn.data import DataSource

    source = DataSource(data, data_root, download, image_size, tell) if data else None
    places = folders(students, out)
    request = Request(
        student=students[0],
        teacher=teacher,
        forget=forget,
        references=references,
        public=public,
        data=source,
        shards=shards,
        out=out,
        settings=settings,
        trusted_architecture=arch,
        seed=seed,
        device=machine(device, None),
        workers=threads,
        overwrite=overwrite,
        resume=resume,
    )
    return [dataclasses.replace(request, student=student, out=place) for student, place in places.items()]


def folders(students: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Where each student's audit goes: `out` itself, or with several students a folder in it, named after the run or
    checkpoint.
    """
    if len(students) == 1:
        return {students[0]: out}
    found: dict[Path, Path] = {}
    for student in students:
        folder = out / (student.resolve().name if student.is_dir() else student.stem)
        if folder in found.values():
            raise UsageError(
                f"two of the students would be audited in {folder}: name each student once, and audit students of the "
                "same name one by one"
            )
        found[student] = folder
    return found
