"""`unlearn audit`: parse, call, print; no logic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from synth.basics.errors import UsageError
from synth.commands.console import ClassList, settings_flags, settings_from_flags
from unlearn.audit.audit_settings import AuditSettings
from unlearn.commands.options import (
    FROM_ENVIRONMENT,
    PATH,
    code_option,
    data_options,
    device_option,
    seed_option,
    threads_option,
)


@click.command(context_settings=FROM_ENVIRONMENT)
@click.argument("students", metavar="STUDENT...", nargs=-1, required=True, type=PATH)
@click.option("--teacher", type=PATH, default="teacher.safetensors", help="the original model")
@click.option("--forget", type=ClassList(), required=True, help="classes that were to be forgotten, such as 0 or 3,8")
@click.option(
    "--reference", "references", type=PATH, multiple=True, help="a model retrained without them; again for each one"
)
@data_options(required=False)
@click.option(
    "--shards", help="run of synth generate: synthetic images to relearn from, and to judge on without --data"
)
@click.option(
    "--out", type=PATH, required=True, help="folder for audit.json and pictures; of several students, for a folder each"
)
@click.option("--overwrite", is_flag=True, help="replace an earlier audit in --out")
@settings_flags(AuditSettings)
@code_option
@seed_option
@device_option
@threads_option
def audit(
    students: tuple[Path, ...],
    teacher: Path,
    forget: tuple[int, ...],
    references: tuple[Path, ...],
    data: str | None,
    data_root: Path | None,
    download: bool,
    image_size: int,
    shards: str | None,
    out: Path,
    overwrite: bool,
    arch: str | None,
    seed: int,
    device: str,
    threads: int | None,
    **flags: Any,
) -> None:
    """Measure what is left of the forgotten classes in STUDENT, a checkpoint or a run folder.

    Runs every measure that the inputs allow, says which it could not run and what would make it possible, and judges by
    stated rules against models that were retrained without the classes. Several students are audited one by one, each into a
    folder of its name in --out, and what is measured of the other models is measured once.
    """
    settings = settings_from_flags(AuditSettings(), flags, "audit")
    from synth.basics.device import machine
    from unlearn.audit import audit as run
    from unlearn.audit.text import audit_text
    from unlearn.data import DataSource

    source = DataSource(data, data_root, download, image_size) if data else None
    requests = [
        run.Request(
            student=student, teacher=teacher, forget=forget, references=references, data=source, shards=shards, out=folder,
            settings=settings, trusted_architecture=arch, seed=seed, device=machine(device, None), workers=threads,
            overwrite=overwrite,
        )
        for student, folder in folders(students, out).items()
    ]  # fmt: skip
    records = run.audit_each(requests, lambda line: click.echo(line, err=True))
    for request, record in zip(requests, records, strict=True):
        if len(requests) > 1:
            click.echo(f"\n{request.student}\n")
        click.echo(audit_text(record))
        click.echo(f"wrote {request.out / run.AUDIT}")


def folders(students: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Where each student's audit goes: `out` itself, or of several a folder in it, named as the student's run or checkpoint."""
    if len(students) == 1:
        return {students[0]: out}
    found: dict[Path, Path] = {}
    for student in students:
        folder = out / (student.resolve().name if student.is_dir() else student.stem)
        if folder in found.values():
            raise UsageError(
                f"two of the students would be audited in {folder}: name each once, and those of one name in commands of their own"
            )
        found[student] = folder
    return found
