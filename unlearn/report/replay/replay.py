"""`unlearn replay`: the audit again, from the settings in its report, and a comparison of every value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from synth.basics.errors import UserError
from synth.shards.index import find_index
from synth.shards.store import open_store
from unlearn.audit.audit import Request, audit
from unlearn.audit.audit_settings import AuditSettings
from unlearn.data import DataSource
from unlearn.report.file import read_report
from unlearn.report.places import AuditedModel, Places, check_places, models_of, run_shards_of, shards_of
from unlearn.report.replay.comparison import Comparison, compare
from unlearn.report.replay.device import device_of
from unlearn.report.replay.remake import remake
from unlearn.report.verify.hashes import sha256_of


def request_of(
    record: Mapping[str, Any], models: Sequence[AuditedModel], shards: str | None, out: Path,
    data_root: Path | None, arch: str | None, workers: int | None,
) -> Request:  # fmt: skip
    """The request that the record was made from, of the models and shards whose hashes it has, not of those that it asked for.

    Raises:
        UserError: its settings are none of this version's.
    """
    data = record["request"]["data"]
    teacher, student, *references = (model.path for model in models)
    try:
        settings = AuditSettings(**record["settings"])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the report's settings are not this version's ({error}): replay it with the version it names"
        ) from error
    root = data_root or (data and data["root"] and Path(data["root"]))
    return Request(
        student=student,
        teacher=teacher,
        forget=tuple(record["forget"]),
        references=references,
        data=data and DataSource(data["name"], root or None, False, data["image_size"]),
        shards=shards,
        out=out,
        settings=settings,
        trusted_architecture=arch,
        seed=record["seed"],
        device=record["device"],
        workers=workers,
    )


def replay(
    report: Path, out: Path, places: Places, data_root: Path | None, arch: str | None,
    workers: int | None, say: Callable[[str], None], retrain: bool = False, device: str | None = None,
) -> Comparison:  # fmt: skip
    """Make the audit again in `out`/audit, on the audit's device or another, and compare. `places` are where the files are now.

    With `retrain` the student is made again first, in `out`/student, and the new one is audited.
    """
    record = read_report(report)
    check_places(record, places)
    models, shards = models_of(record, places), shards_of(record, places)
    for model in models:
        if not (retrain and model.option == "--student"):
            check_same(model)
    check_shards(shards)
    request, same = request_of(record, models, shards, out / "audit", data_root, arch, workers), None
    request = replace(request, device=device_of(device or record["device"]))
    if retrain:
        learnt_from = run_shards_of(record, places)
        student, same = remake(record, out / "student", request.teacher, learnt_from, arch, say, device)
        request = replace(request, student=student)
    return replace(compare(record, audit(request, say), retrain), same_student=same)


def check_same(model: AuditedModel) -> None:
    try:
        digest = sha256_of(model.path)
    except FileNotFoundError:
        raise UserError(f"{model.name} is not in {model.path}: name its place now with {model.option}") from None
    except (OSError, ValueError) as error:
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
