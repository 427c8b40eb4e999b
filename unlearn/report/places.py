"""Where the files of an audit are now: as its record has them, or as the user names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.basics.errors import UsageError
from synth.shards.index import find_index
from synth.shards.store import open_store
from unlearn.audit.subjects import student_file


@dataclass(frozen=True, kw_only=True)
class Places:
    """What the user names; None, or no references, where the files are looked for as the record has them."""

    teacher: Path | None = None
    student: Path | None = None
    references: Sequence[Path] = ()
    shards: str | None = None
    run_shards: str | None = None  # those that the student learnt from, where the audit looked at others


@dataclass(frozen=True)
class AuditedModel:
    """A model of the audit: its name in messages, the option that names its place, where it is looked for, and its hash."""

    name: str
    option: str
    path: Path
    sha256: str


def check_places(record: Mapping[str, Any], places: Places) -> None:
    """Raise UsageError where a named file isn't there, or there are more or fewer references than the audit had."""
    wanted, given = len(record["models"]["references"]), len(places.references)
    if given and given != wanted:
        raise UsageError(
            f"the audit had {wanted} reference{'' if wanted == 1 else 's'}, and {given} {'is' if given == 1 else 'are'} given: "
            "name each of them with --reference, in the audit's order"
        )
    named = [("--teacher", places.teacher), ("--student", places.student and student_file(places.student))]
    for option, path in [*named, *(("--reference", path) for path in places.references)]:
        if path and not path.is_file():
            raise UsageError(f"{option} {path}: there is no such file")
    for option, uri in (("--shards", places.shards), ("--run-shards", places.run_shards)):
        if uri is not None and find_index(open_store(uri)) is None:
            raise UsageError(f"{option} {uri}: there is no run of synth generate")


def models_of(record: Mapping[str, Any], places: Places) -> list[AuditedModel]:
    """The teacher, the student and the references, in this order."""
    models = record["models"]
    student = student_file(places.student) if places.student else None
    found = [
        AuditedModel("the teacher", "--teacher", places.teacher or Path(models["teacher"]["path"]), models["teacher"]["sha256"]),
        AuditedModel("the student", "--student", student or Path(models["student"]["path"]), models["student"]["sha256"]),
    ]  # fmt: skip
    references = models["references"]
    paths = places.references or [Path(m["path"]) for m in references]
    for number, (path, model) in enumerate(zip(paths, references, strict=True), 1):
        name = f"retrained model {number}" if len(references) > 1 else "the retrained model"
        found.append(AuditedModel(name, "--reference", path, model["sha256"]))
    return found


def shards_of(record: Mapping[str, Any], places: Places) -> str | None:
    """Where the audit's shards are now; None where it had none."""
    made = record["origin"]["shards"]
    return made and (places.shards or made["uri"])


def run_shards_of(record: Mapping[str, Any], places: Places) -> str | None:
    """Where the shards that the student's run read are now; None where no run names any."""
    if places.run_shards is not None:
        return places.run_shards
    if run_read_the_audits(record):
        return shards_of(record, places)
    if record["origin"]["shards"] is None and places.shards is not None:
        return places.shards
    told = (record["origin"]["run"] or {"provenance": {}})["provenance"].get("shards")
    return told if isinstance(told, str) and told else None


def run_read_the_audits(record: Mapping[str, Any]) -> bool:
    """Whether the shards that the student's run read are those that the audit looked at."""
    made, named = record["origin"]["shards"], run_index_of(record)
    return bool(made and named) and made["index_sha256"] == named


def run_index_of(record: Mapping[str, Any]) -> str | None:
    """The hash of their index, by the run's own account."""
    told = (record["origin"]["run"] or {"provenance": {}})["provenance"].get("index_sha256")
    return told if isinstance(told, str) else None
