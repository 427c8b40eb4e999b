"""Where the files of an audit are now: where its record has them, or where the user says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.basics.errors import UsageError
from synth.basics.progress import counted
from synth.checkpoint.file import student_file
from synth.shards.index import find_index
from synth.shards.store import open_store
from unlearn.auditing.record.schema import POINTS_FORMAT


@dataclass(frozen=True, kw_only=True)
class Places:
    """What the user names. A file that the user doesn't name is looked for where the record has it."""

    teacher: Path | None = None
    student: Path | None = None
    references: Sequence[Path] = ()
    public: Path | None = None
    shards: str | None = None
    run_shards: Sequence[str] = ()  # the shards that the student learnt from, if the audit looked at other ones
    points: Path | None = None  # the folder of the points to forget


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
    run_shards: Sequence[str]  # that the student's run read, in its order; none where they are not known
    public: AuditedModel | None = None  # the weights that the student started from
    points: Path | None = None  # the points that were audited, or else those that the student's run forgot

    @property
    def models(self) -> list[AuditedModel]:
        return [self.teacher, self.student, *self.references, *([self.public] if self.public else [])]


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
        public=public_of(record, places),
        points=places.points or folder_of_points(record),
    )


def is_of_points(record: Mapping[str, Any]) -> bool:
    return bool(record["format"] == POINTS_FORMAT)


def folder_of_points(record: Mapping[str, Any]) -> Path | None:
    """Where the record has the points that were audited, or else those that the student's run forgot."""
    run = record["origin"]["run"]
    named = record["request"]["points"] if is_of_points(record) else run and run["settings"].get("forget_points")
    return Path(named) if isinstance(named, str) and named else None


def public_of(record: Mapping[str, Any], places: Places) -> AuditedModel | None:
    """The public weights of the audit; None where it had none."""
    facts = record["models"].get("public")
    if facts is None:
        return None
    return AuditedModel("the public checkpoint", "--public", places.public or Path(facts["path"]), facts)


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
    named.append(("--public", places.public))
    for option, path in [*named, *(("--reference", path) for path in places.references)]:
        if path and not path.is_file():
            raise UsageError(f"{option} {path}: there is no such file")
    if places.points and not places.points.is_dir():
        raise UsageError(f"--forget-points {places.points}: there is no such folder")
    if places.points and folder_of_points(record) is None:
        raise UsageError("--forget-points has no effect: the report is not about single images")
    for option, uri in (("--shards", places.shards), *(("--run-shards", uri) for uri in places.run_shards)):
        if uri is not None and find_index(open_store(uri)) is None:
            raise UsageError(f"{option} {uri}: there is no run of synth generate")


def shards_of(record: Mapping[str, Any], places: Places) -> str | None:
    """Where the audit's shards are now; None where it had none."""
    shards = record["origin"]["shards"]
    return shards and (places.shards or shards["uri"])


def run_shards_of(record: Mapping[str, Any], places: Places) -> list[str]:
    """Where the shards that the student's run read are now, in the run's order; empty where the run names none.

    Raises UsageError if the user names more or fewer places than the run read.
    """
    named, hashes = texts_in(run_provenance(record).get("shards")), run_indexes_of(record)
    if places.run_shards:
        if hashes and len(places.run_shards) != len(hashes):
            raise UsageError(
                f"the student's run read {counted(len(hashes), 'run')} of shards, and {len(places.run_shards)} "
                f"{'is' if len(places.run_shards) == 1 else 'are'} given: name each of them with --run-shards, in order"
            )
        return list(places.run_shards)
    shards = record["origin"]["shards"]
    if shards is None and places.shards is not None:
        return [places.shards]
    if shards is not None and len(named) == len(hashes):  # the audit's own are looked for where the user has them
        audited = (digest == shards["index_sha256"] for digest in hashes)
        return [places.shards or uri if same else uri for uri, same in zip(named, audited, strict=True)]
    return named


def run_read_the_audits(record: Mapping[str, Any]) -> bool:
    """Whether the student's run read the same shards as the audit, and no others."""
    shards, named = record["origin"]["shards"], run_indexes_of(record)
    return bool(shards and named) and named == [shards["index_sha256"]]


def run_indexes_of(record: Mapping[str, Any]) -> list[str]:
    """The hash of the index of each run of shards that the student's run read, as the run recorded it."""
    return texts_in(run_provenance(record).get("index_sha256"))


def texts_in(raw: Any) -> list[str]:
    """What a run recorded of its shards: of one run a text, of several a list. Empty for anything else."""
    values = raw if isinstance(raw, list) else [raw]
    return values if all(isinstance(value, str) and value for value in values) else []


def run_provenance(record: Mapping[str, Any]) -> Mapping[str, Any]:
    run = record["origin"]["run"]
    return run["provenance"] if run else {}
