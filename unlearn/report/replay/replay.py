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
from unlearn.auditing.points.audit_points import PointsRequest, audit_points
from unlearn.data import DataSource
from unlearn.report.file import read_report
from unlearn.report.places import AuditedModel, Located, Places, is_of_points, locate
from unlearn.report.replay.announcement import announcement, announcement_on_points
from unlearn.report.replay.comparison import Comparison, compare
from unlearn.report.replay.device import device_of
from unlearn.report.replay.remake import remake
from unlearn.report.verify.checks import HOLDS
from unlearn.report.verify.point_values import points_folder

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
        UserError: the file holds no report, or its models, shards, points, device or settings are not there.
    """
    record = read_report(report).record
    located, same = locate(record, places), None
    for model in located.models:
        if not (retrain and model is located.student):
            check_same(model)
    request: Request | PointsRequest
    if is_of_points(record):
        check_points(record, located.points)
        request, lines = points_request(record, located, out / "audit"), announcement_on_points(record, retrain)
    else:
        check_shards(located.shards)
        request = audit_request(record, located, out / "audit", device_of(device or record["device"]))
        request, lines = replace(request, workers=workers), announcement(record, request, retrain)
    request = replace(request, trusted_architecture=arch)
    if data_root and request.data:
        request = replace(request, data=replace(request.data, root=data_root))
    for line in lines:
        say(line)
    if retrain:
        teacher, learnt_from = located.teacher.path, located.run_shards
        student, same = remake(
            record, out / "student", teacher, learnt_from, arch, say, device, WAY_ON, points=located.points
        )
        request = replace(request, student=student)
    new = audit_points(request, say) if isinstance(request, PointsRequest) else audit(request, say)
    return replace(compare(record, new, retrain), same_student=same)


def audit_request(record: Mapping[str, Any], located: Located, out: Path, device: str) -> Request:
    """The audit's request, rebuilt from the record. It uses the files whose hashes match, not the paths that were asked
    for.

    Raises:
        UserError: this version can't read the audit's settings.
    """
    try:
        return Request(
            student=located.student.path,
            teacher=located.teacher.path,
            forget=tuple(record["forget"]),
            references=[model.path for model in located.references],
            public=located.public.path if located.public else None,
            data=data_source(record),
            shards=located.shards,
            out=out,
            settings=AuditSettings(**record["settings"]),
            seed=record["seed"],
            device=device,
            way_on=WAY_ON,
        )
    except (TypeError, ValueError) as error:
        raise other_version(error) from error


def points_request(record: Mapping[str, Any], located: Located, out: Path) -> PointsRequest:
    """As `audit_request`, of an audit of points."""
    assert located.points is not None, "check_points"
    try:
        return PointsRequest(
            student=located.student.path,
            teacher=located.teacher.path,
            points=located.points,
            references=[model.path for model in located.references],
            data=data_source(record),
            out=out,
            settings=AuditSettings(**record["settings"]),
            seed=record["seed"],
            way_on=WAY_ON,
        )
    except (TypeError, ValueError) as error:
        raise other_version(error) from error


def data_source(record: Mapping[str, Any]) -> DataSource | None:
    data = record["request"]["data"]
    return data and DataSource(data["name"], data["root"] and Path(data["root"]), False)


def other_version(error: Exception) -> UserError:
    return UserError(
        f"the report's settings are not this version's ({error}): replay it with the version that it names"
    )


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


def check_points(record: Mapping[str, Any], folder: Path | None) -> None:
    """Raise UserError where the folder does not hold the points that were audited."""
    for check in points_folder(record, folder):
        if check.state != HOLDS:
            raise UserError(f"{check.what}: {check.why}")
