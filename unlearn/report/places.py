"""Where the files of an audit are now: where its record has them, or where the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.basics.errors import UsageError
from synth.shards.index import find_index
from synth.shards.store import open_store
from unlearn.run.folder import student_file


@dataclass(frozen=True, kw_only=True)
class Places:
    """What the user names. A file that the user doesn't name is looked for where the record has it."""

    teacher: Path | None = None
    student: Path | None = None
    references: Sequence[Path] = ()
    shards: str | None = None
    run_shards: str | None = None  # the shards that the student learnt from, if the audit looked at other ones


@dataclass(frozen=True)
class AuditedModel:
    """A model of the audit."""

    name: str  # in messages
    option: str  # names the model's place
    path: Path  # where it is now
    facts: Mapping[str, Any]  # what the record says about it: sha256, architecture, width, training

    @property
    def sha256(self) -> str:
        return str(self.facts["sha256"])


@dataclass(frozen=True)
class Located:
    """The files of an audit, where they are now."""

    teacher: AuditedModel
    student: AuditedModel
    references: Sequence[AuditedModel]
    shards: str | None  # that the audit looked at; None where it looked at none
    run_shards: str | None  # that the student's run read; None where they are not known

    @property
    def models(self) -> list[AuditedModel]:
        return [self.teacher, self.student, *self.references]


def locate(record: Mapping[str, Any], places: Places) -> Located:
    """Where the audit's files are now.

    Raises:
        UsageError: a file that the user names isn't there, or the user names more or fewer references than the audit
        had.
    """
    check_places(record, places)
    models = record["models"]
    student = student_file(places.student) if places.student else Path(models["student"]["path"])
    references = models["references"]
    paths = places.references or [Path(model["path"]) for model in references]
    return Located(
        teacher=AuditedModel(
            "the teacher", "--teacher", places.teacher or Path(models["teacher"]["path"]), models["teacher"]
        ),
        student=AuditedModel("the student", "--student", student, models["student"]),
        references=[
            AuditedModel(reference_name(number, len(references)), "--reference", path, model)
            for number, (path, model) in enumerate(zip(paths, references, strict=True), 1)
        ],
        shards=shards_of(record, places),
        run_shards=run_shards_of(record, places),
    )


def reference_name(number: int, count: int) -> str:
    return f"retrained model {number}" if count > 1 else "the retrained model"


def check_places(record: Mapping[str, Any], places: Places) -> None:
    """Raise UsageError where a named file isn't there, or where the number of references is not the audit's."""
    expected, given = len(record["models"]["references"]), len(places.references)
    if given and given != expected:
        raise UsageError(
            f"the audit had {expected} reference{'' if expected == 1 else 's'}, and {given} "
            f"{'is' if given == 1 else 'are'} given: name each of them with --reference, in the audit's order"
        )
    named = [("--teacher", places.teacher), ("--student", places.student and student_file(places.student))]
    for option, path in [*named, *(("--reference", path) for path in places.references)]:
        if path and not path.is_file():
            raise UsageError(f"{option} {path}: there is no such file")
    for option, uri in (("--shards", places.shards), ("--run-shards", places.run_shards)):
        if uri is not None and find_index(open_store(uri)) is None:
            raise UsageError(f"{option} {uri}: there is no run of synth generate")


def shards_of(record: Mapping[str, Any], places: Places) -> str | None:
    """Where the audit's shards are now; None where it had none."""
    shards = record["origin"]["shards"]
    return shards and (places.shards or shards["uri"])


def run_shards_of(record: Mapping[str, Any], places: Places) -> str | None:
    """Where the shards that the student's run read are now; None where the run names none."""
    if places.run_shards is not None:
        return places.run_shards
    if run_read_the_audits(record):
        return shards_of(record, places)
    if record["origin"]["shards"] is None and places.shards is not None:
        return places.shards
    named = run_provenance(record).get("shards")
    return named if isinstance(named, str) and named else None


def run_read_the_audits(record: Mapping[str, Any]) -> bool:
    """Whether the student's run read the same shards as the audit."""
    shards, named = record["origin"]["shards"], run_index_of(record)
    return bool(shards and named) and shards["index_sha256"] == named


def run_index_of(record: Mapping[str, Any]) -> str | None:
    """The hash of the index of the shards that the student's run read, as the run recorded it."""
    named = run_provenance(record).get("index_sha256")
    return named if isinstance(named, str) else None


def run_provenance(record: Mapping[str, Any]) -> Mapping[str, Any]:
    run = record["origin"]["run"]
    return run["provenance"] if run else {}
