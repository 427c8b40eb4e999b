"""`unlearn replay`: the audit again, from the settings in its report, and a comparison of every value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from synth.basics.errors import UserError
from synth.basics.regular_files import hash_and_start
from synth.basics.way_on import WayOn
from synth.checkpoint.file import LARGEST_CHECKPOINT
from synth.shards.index import find_index
from synth.shards.store import open_store
from unlearn.auditing.audit import Request, audit
from unlearn.auditing.audit_settings import AuditSettings
from unlearn.data import DataSource
from unlearn.report.file import read_report
from unlearn.report.places import AuditedModel, Located, Places, locate
from unlearn.report.replay.announcement import announcement
from unlearn.report.replay.comparison import Comparison, compare
from unlearn.report.replay.device import device_of
from unlearn.report.replay.remake import remake

AGAIN = "start the replay again, with --out in another folder"
WAY_ON = WayOn(command="unlearn replay", again=AGAIN, anew=AGAIN, replaces=False, resumes=False)


def replay(
    report: Path,
    out: Path,
    places: Places,
    data_root: Path | None,
    arch: str | None,
    workers: int | None,
    say: Callable[[str], None],
    retrain: bool = False,
    device: str | None = None,
) -> Comparison:
    """Make the audit again in `out`/audit, on the audit's device or on `device`, and compare. `places` are where the
    files are now.

    With `retrain` the student is made again first, in `out`/student, and the new one is audited.

    Raises:
        UserError: the file holds no report, or its models, shards, device or settings are not there.
    """
    record = read_report(report).record
    located, same = locate(record, places), None
    for model in located.models:
        if not (retrain and model is located.student):
            check_same(model)
    check_shards(located.shards)
    request = audit_request(record, located, out / "audit", device_of(device or record["device"]))
    request = replace(request, trusted_architecture=arch, workers=workers)
    if data_root and request.data:
        request = replace(request, data=replace(request.data, root=data_root))
    for line in announcement(record, request, retrain):
        say(line)
    if retrain:
        teacher, learnt_from = located.teacher.path, located.run_shards
        student, same = remake(record, out / "student", teacher, learnt_from, arch, say, device, WAY_ON)
        request = replace(request, student=student)
    return replace(compare(record, audit(request, say), retrain), same_student=same)


def audit_request(record: Mapping[str, Any], located: Located, out: Path, device: str) -> Request:
    """The audit's request, rebuilt from the record. It uses the files whose hashes match, not the paths that were asked
    for.

    Raises:
        UserError: this version can't read the audit's settings.
    """
    data = record["request"]["data"]
    try:
        return Request(
            student=located.student.path,
            teacher=located.teacher.path,
            forget=tuple(record["forget"]),
            references=[model.path for model in located.references],
            public=located.public.path if located.public else None,
            data=data and DataSource(data["name"], data["root"] and Path(data["root"]), False),
            shards=located.shards,
            out=out,
            settings=AuditSettings(**record["settings"]),
            seed=record["seed"],
            device=device,
            way_on=WAY_ON,
        )
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the report's settings are not this version's ({error}): replay it with the version that it names"
        ) from error


def check_same(model: AuditedModel) -> None:
    """Raise UserError where the file is not the model that was audited."""
    try:
        digest, _ = hash_and_start(model.path, LARGEST_CHECKPOINT)
    except FileNotFoundError:
        raise UserError(f"{model.name} is not in {model.path}: name its place now with {model.option}") from None
    except OSError as error:
        raise UserError(
            f"{model.name} in {model.path} can't be read ({error}): name its place now with {model.option}"
        ) from error
    if digest != model.sha256:
        raise UserError(
            f"{model.name} in {model.path} is not the one that was audited: name that one with {model.option}"
        )


def check_shards(uri: str | None) -> None:
    if uri is not None and find_index(open_store(uri)) is None:
        raise UserError(f"the shards are not in {uri}: name their place now with --shards")
