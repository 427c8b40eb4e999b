"""The chain of hashes from checkpoint through shards to student, and what the files themselves say along it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synth.basics.disk import sha256_of
from synth.basics.errors import UserError
from synth.basics.foreign_json import parse_object
from synth.basics.regular_files import hash_and_start
from synth.checkpoint.file import LARGEST_CHECKPOINT, LARGEST_HEADER, parse_card
from synth.shards.index import Index, find_index, index_sha256
from synth.shards.samples import LARGEST_SHARD
from synth.shards.store import Store, open_store
from unlearn.auditing.record.origin import run_of
from unlearn.report.places import AuditedModel, Located, run_indexes_of, run_read_the_audits
from unlearn.report.verify.checks import BROKEN, HOLDS, NOT_CHECKED, Check, compared, unreadable


def chain(record: Mapping[str, Any], located: Located) -> Iterator[Check]:
    for model in located.models:
        yield from model_checks(model, record["class_names"])
    yield from run_files(record, located.student)
    yield from claims(record)
    if located.shards is not None:
        yield from shards(record["origin"]["shards"], located.shards)
    if not run_read_the_audits(record):
        yield from run_shards(record, located.run_shards)


def model_checks(model: AuditedModel, class_names: list[str]) -> Iterator[Check]:
    """The model is the one that was audited, and its own card says what the record says about it."""
    what = f"{model.name} is the one that was audited"
    try:
        digest, start = hash_and_start(model.path, LARGEST_CHECKPOINT, 8 + LARGEST_HEADER)
    except OSError as error:
        yield unreadable(what, str(model.path), error, model.option)
        return
    yield compared(what, digest, model.sha256)
    if digest == model.sha256:
        yield card_check(model, start, class_names)


def card_check(model: AuditedModel, start: bytes, class_names: list[str]) -> Check:
    """`start` is the checkpoint's header, with what follows it or without."""
    what = f"{model.name}'s card says what the record does"
    expected = {name: model.facts[name] for name in ("architecture", "width", "training")}
    if model.option == "--teacher":
        expected["class_names"] = class_names
    try:
        card = parse_object(parse_card(start, str(model.path)).to_json())
    except UserError as error:
        return Check(what, BROKEN, str(error))
    return compared(what, {name: card[name] for name in expected}, expected)


def run_files(record: Mapping[str, Any], student: AuditedModel) -> Iterator[Check]:
    """Settings, metrics and provenance of the student's run are the files in its folder."""
    what = "the run's settings, metrics and provenance are those beside the student"
    run, folder = record["origin"]["run"], student.path.parent
    if run is None:
        if student.facts["training"].get("teacher_sha256"):
            yield Check(what, NOT_CHECKED, "the record has none: the student was audited outside of its run's folder")
        return
    found = run_of(folder, student.sha256)
    if found is None:
        yield Check(what, NOT_CHECKED, f"{folder} holds no such run: name the student's place now with --student")
        return
    found = json.loads(json.dumps(found))
    parts = ", ".join(part for part in run if found[part] != run[part])
    yield Check(what, BROKEN, f"others in {folder}: {parts}") if parts else Check(what, HOLDS)


def claims(record: Mapping[str, Any]) -> Iterator[Check]:
    """What the student, its run and the shards say about each other fits together."""
    models, run, audited = record["models"], record["origin"]["run"], record["origin"]["shards"]
    teacher, student = models["teacher"]["sha256"], models["student"]["sha256"]
    named = models["student"]["training"].get("teacher_sha256")
    if named:
        yield compared("the student names this teacher", named, teacher)
    if audited:
        yield compared("the shards name this teacher", audited["teacher_sha256"], teacher)
    for problem in record["origin"]["problems"]:
        yield Check("the student's run folder fits the student", BROKEN, problem)
    if run:
        provenance = run["provenance"]
        yield compared("the run names this student", provenance.get("student_sha256"), student)
        yield compared("the run names this teacher", provenance.get("teacher_sha256"), teacher)
        if run_read_the_audits(record):
            yield Check("the run names these shards", HOLDS)


def shards(audited: Mapping[str, Any], uri: str) -> Iterator[Check]:
    """Each of the audit's shards is the one in the index and in the record."""
    what = "the shards' index is the one that was audited"
    there = index_in(uri, what, "--shards")
    if isinstance(there, Check):
        yield there
        return
    if audited["index_sha256"] is None:
        yield Check(what, NOT_CHECKED, "the run was still growing then")
    else:
        yield compared(what, there.sha256, audited["index_sha256"])
    listed = there.listed
    known = listed if audited["complete"] else {name: listed.get(name) for name in audited["shards"]}
    yield compared("the index lists the shards of the record", known, audited["shards"])
    yield from each_shard(there, audited["shards"], "", "--shards")


def run_shards(record: Mapping[str, Any], places: Sequence[str]) -> Iterator[Check]:
    """The shards that the student's run read, where the audit looked at other ones (hold-outs) or at none."""
    expected = run_indexes_of(record)
    if expected and not places:
        what = "the shards that the run read have the index that it names"
        yield Check(what, NOT_CHECKED, "the run doesn't say where they are: name their place with --run-shards")
    for number, (uri, digest) in enumerate(zip(places, expected, strict=False), 1):
        which = "" if len(expected) == 1 else f" {number}"
        yield from shards_of_run(record, uri, digest, which)


def shards_of_run(record: Mapping[str, Any], uri: str, expected: str, which: str) -> Iterator[Check]:
    """One of the runs of shards that the student's run read. `which` numbers it, if there are several."""
    what = f"the shards{which} that the run read have the index that it names"
    there = index_in(uri, what, "--run-shards")
    if isinstance(there, Check):
        yield there
        return
    yield compared(what, there.sha256, expected)
    if there.sha256 != expected:
        return
    teacher = record["models"]["teacher"]["sha256"]
    yield compared(f"the shards{which} that the run read name this teacher", there.index.card.teacher_sha256, teacher)
    yield from each_shard(there, there.listed, f" of the run{which}", "--run-shards")


@dataclass(frozen=True)
class Shards:
    """A run of synth generate. Its index has a hash once the run is complete."""

    store: Store
    index: Index
    sha256: str | None

    @property
    def listed(self) -> dict[str, str]:
        """The hash of each shard in the index, by the shard's name."""
        return {entry.name: entry.sha256 for entry in self.index.entries.values()}


def index_in(uri: str, what: str, option: str) -> Shards | Check:
    """The run in that place; where it can't be read, why `what` was not checked."""
    try:
        store = open_store(uri)
        index = find_index(store)
        digest = index_sha256(store) if index and index.complete else None
    except UserError as error:
        return Check(what, NOT_CHECKED, str(error))
    if index is None:
        return Check(what, NOT_CHECKED, f"there is no run in {uri}: name its place now with {option}")
    return Shards(store, index, digest)


def each_shard(there: Shards, expected: Mapping[str, str], whose: str, option: str) -> Iterator[Check]:
    sizes = {entry.name: entry.size for entry in there.index.entries.values()}
    for name, digest in expected.items():
        what = f"{name}{whose}"
        try:
            yield compared(what, sha256_of(there.store.read(name, sizes.get(name, LARGEST_SHARD))), digest)
        except OSError as error:
            yield unreadable(what, f"{there.store}/{name}", error, option)
        except UserError as error:
            yield Check(what, NOT_CHECKED, str(error))
