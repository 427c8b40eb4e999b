"""`unlearn replay`: the audit again, from the settings in its report, and a comparison of every value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synth.errors import UserError
from synth.index import find_index
from synth.store import open_store
from unlearn.audit.run import Request, audit
from unlearn.audit.settings import AuditSettings
from unlearn.audit.written_by import PACKAGE
from unlearn.report.device import device_of
from unlearn.report.document import read_report
from unlearn.report.hashes import sha256_of
from unlearn.report.places import AuditedModel, Places, check_places, models_of, run_shards_of, shards_of
from unlearn.report.remake import remake
from unlearn.report.values import close
from unlearn.tasks import DataSource

TOLD_AS = {
    "class_names": "the names of the classes",
    "forget": "the classes to forget",
    "seed": "the seed",
    "settings": "the audit's settings",
    "ledger": "the ledger",
    "histograms": "the histograms",
    "pictures": "the pictures",
}
FACTS = ("unit", "more_left", "resolution", "source", "quality", "against_retrained")


@dataclass(frozen=True)
class Comparison:
    """How two records of the same request differ."""

    measures: int
    equal: int
    largest: float  # difference of two values
    where: str
    outside: list[
        str
    ]  # measures whose new mean is outside of the old interval and resolution, and what else is not the same
    conclusions: tuple[str, str]
    same_student: bool | None = None  # byte for byte, where it was made again

    @property
    def agrees(self) -> bool:
        return not self.outside and self.conclusions[0] == self.conclusions[1]


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


def compare(old: Mapping[str, Any], new: Mapping[str, Any], retrained: bool = False) -> Comparison:
    """`retrained` where the new record is of a student that was made again, whose bytes may be others."""
    fresh = {m["name"]: m for m in new["measurements"]}
    largest, where, equal = 0.0, "", 0
    outside = [
        f"{name}, which the report lacks" for name in fresh if name not in {m["name"] for m in old["measurements"]}
    ]
    outside += other_inputs(old, new, retrained)
    outside += other_facts(old, new, retrained)
    for m in old["measurements"]:
        other = fresh.get(m["name"])
        if other is None or set(other["readings"]) != set(m["readings"]):
            outside.append(m["name"])
            continue
        differences = [difference(m["readings"][s]["values"], other["readings"][s]["values"]) for s in m["readings"]]
        equal += max(differences) == 0
        if any(m[fact] != other[fact] for fact in FACTS):
            outside.append(f"{m['name']}, which is judged otherwise")
        if max(differences) > largest:
            largest, where = max(differences), m["name"]
        for subject, reading in m["readings"].items():
            low, high = reading["low"] - m["resolution"], reading["high"] + m["resolution"]
            if not low <= other["readings"][subject]["mean"] <= high:
                outside.append(f"{m['name']} of {subject}")
    if equal == len(fresh) == len(old["measurements"]):
        outside += other_results(old, new)
    conclusions = old["verdict"]["conclusion"], new["verdict"]["conclusion"]
    return Comparison(len(old["measurements"]), equal, largest, where, outside, conclusions)


def other_inputs(old: Mapping[str, Any], new: Mapping[str, Any], retrained: bool) -> Iterator[str]:
    """Which models and shards of the new record are not the old one's, by their hashes."""
    for before, after in zip(models_of(old, Places()), models_of(new, Places()), strict=True):
        if before.sha256 != after.sha256 and not (retrained and before.option == "--student"):
            yield f"{before.name}, which is another one"
    made, found = (record["origin"]["shards"] or {"shards": {}, "index_sha256": None} for record in (old, new))
    changed = [name for name, digest in made["shards"].items() if found["shards"].get(name) != digest]
    if changed or (made["index_sha256"] and found["index_sha256"] != made["index_sha256"]):
        yield f"the shards, which are others ({len(changed)} of {len(made['shards'])})"


def other_facts(old: Mapping[str, Any], new: Mapping[str, Any], retrained: bool) -> Iterator[str]:
    """What no machine changes, and the records tell otherwise."""
    for name in ("class_names", "forget", "seed", "settings", "ledger"):
        if old[name] != new[name]:
            yield TOLD_AS[name]
    if old["ledger"] and old["images"] != new["images"]:  # of synthetic images it names their place
        yield "what it was judged on"
    if {n["name"] for n in old["not_run"]} != {n["name"] for n in new["not_run"]}:
        yield "what could not be run"
    models = [[r["models"]["teacher"], r["models"]["student"], *r["models"]["references"]] for r in (old, new)]
    for model, before, after in zip(models_of(old, Places()), *models, strict=True):
        if retrained and model.option == "--student":
            continue
        if any(before[fact] != after[fact] for fact in ("architecture", "width", "training")):
            yield f"what {model.name}'s card says"
    if not retrained and new["origin"]["run"] and old["origin"]["run"] != new["origin"]["run"]:
        yield "the run's settings, metrics and provenance"


def other_results(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What follows from the same values on the same kind of machine, and the records tell otherwise."""
    for name in ("histograms", "pictures"):
        if old[name] != new[name]:
            yield TOLD_AS[name]
    details = [{m["name"]: m["details"] for m in record["measurements"]} for record in (old, new)]
    yield from (
        f"the curves or counts of {name}" for name in details[0] if not close(details[0][name], details[1][name])
    )
    if old["versions"].get(PACKAGE) == new["versions"].get(PACKAGE) and (old["verdict"], old["controls"]) != (
        new["verdict"], new["controls"],
    ):  # fmt: skip
        yield "the verdict's reasons, or those on the known models"


def difference(old: list[list[float]], new: list[list[float]]) -> float:
    """The largest difference of two tables of values; infinite where they are of other sizes."""
    if [len(row) for row in old] != [len(row) for row in new]:
        return float("inf")
    return max(abs(a - b) for row, other in zip(old, new, strict=True) for a, b in zip(row, other, strict=True))
