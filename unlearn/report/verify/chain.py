"""The chain of hashes from checkpoint through shards to student, and what the files themselves say along it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from synth.basics.errors import UserError
from synth.checkpoint.file import parse_card
from synth.shards.index import Index, find_index, index_sha256
from synth.shards.store import Store, open_store
from unlearn.audit.record.origin import run_of
from unlearn.report.places import Places, models_of, run_index_of, run_read_the_audits, run_shards_of, shards_of
from unlearn.report.verify.checks import BROKEN, HOLDS, NOT_CHECKED, Check, compared, looked_up
from unlearn.report.verify.hashes import sha256_of


def chain(record: Mapping[str, Any], places: Places) -> Iterator[Check]:
    yield from files(record, places)
    yield from cards(record, places)
    yield from run_files(record, places)
    yield from claims(record)
    yield from shards(record, places)
    yield from run_shards(record, places)


def files(record: Mapping[str, Any], places: Places) -> Iterator[Check]:
    """The models are the ones that were audited."""
    for model in models_of(record, places):
        look = partial(sha256_of, model.path)
        yield looked_up(f"{model.name} is the one that was audited", look, model.sha256, str(model.path), model.option)


def cards(record: Mapping[str, Any], places: Places) -> Iterator[Check]:
    """What the record says of each model is what the model's own card says."""
    models = record["models"]
    written = (models["teacher"], models["student"], *models["references"])
    for model, facts in zip(models_of(record, places), written, strict=True):
        wanted = {name: facts[name] for name in ("architecture", "width", "training")}
        if model.option == "--teacher":
            wanted["class_names"] = record["class_names"]
        try:
            if sha256_of(model.path) != model.sha256:
                continue  # said already
            card = json.loads(parse_card(model.path.read_bytes(), str(model.path)).to_json())
        except (OSError, ValueError):
            continue  # said already
        except UserError as error:
            yield Check(f"{model.name}'s card says what the record does", BROKEN, str(error))
            continue
        found = {name: card[name] for name in wanted}
        yield compared(f"{model.name}'s card says what the record does", found, wanted)


def run_files(record: Mapping[str, Any], places: Places) -> Iterator[Check]:
    """Settings, metrics and provenance of the student's run are those in its folder."""
    run, student = record["origin"]["run"], models_of(record, places)[1]
    what = "the run's settings, metrics and provenance are those beside the student"
    if run is None:
        if record["models"]["student"]["training"].get("teacher_sha256"):
            yield Check(what, NOT_CHECKED, "the record has none: the student was audited outside of its run's folder")
        return
    try:
        found = run_of(student.path.parent, student.sha256)
    except (ValueError, OSError):  # a path with a zero byte
        found = None
    if found is None:
        yield Check(
            what, NOT_CHECKED, f"{student.path.parent} holds no such run: name the student's place now with --student"
        )
    elif json.loads(json.dumps(found)) == run:
        yield Check(what, HOLDS)
    else:
        parts = ", ".join(part for part in run if json.loads(json.dumps(found[part])) != run[part])
        yield Check(what, BROKEN, f"others in {student.path.parent}: {parts}")


def shard_sha256(store: Store, name: str) -> str:
    return hashlib.sha256(store.read(name)).hexdigest()


def claims(record: Mapping[str, Any]) -> Iterator[Check]:
    """What the student's run and the shards say of each other fits together."""
    models, run, made = record["models"], record["origin"]["run"], record["origin"]["shards"]
    teacher, student = models["teacher"]["sha256"], models["student"]["sha256"]
    told = models["student"]["training"].get("teacher_sha256")
    if told:
        yield compared("the student names this teacher", told, teacher)
    if made:
        yield compared("the shards name this teacher", made["teacher_sha256"], teacher)
    for problem in record["origin"]["problems"]:
        yield Check("the student's run folder fits the student", BROKEN, problem)
    if run:
        provenance = run["provenance"]
        yield compared("the run names this student", provenance.get("student_sha256"), student)
        yield compared("the run names this teacher", provenance.get("teacher_sha256"), teacher)
        if run_read_the_audits(record):
            yield Check("the run names these shards", HOLDS)


def shards(record: Mapping[str, Any], places: Places) -> Iterator[Check]:
    """Each of the audit's shards is the one that the index, and the record, have."""
    made, uri = record["origin"]["shards"], shards_of(record, places)
    if uri is None:
        return
    what = "the shards' index is the one that was audited"
    there = index_in(uri, what, "--shards")
    if isinstance(there, Check):
        yield there
        return
    if made["index_sha256"] is None:
        yield Check(what, NOT_CHECKED, "the run was still growing then")
    else:
        yield compared(what, there.sha256, made["index_sha256"])
    listed = there.listed
    known = listed if made["complete"] else {name: listed.get(name) for name in made["shards"]}
    yield compared("the index lists the shards of the record", known, made["shards"])
    yield from each_shard(there, made["shards"], "", "--shards")


def run_shards(record: Mapping[str, Any], places: Places) -> Iterator[Check]:
    """The shards that the student's run read, where they are others than the audit's: hold-outs, or none."""
    wanted, uri = run_index_of(record), run_shards_of(record, places)
    if wanted is None or run_read_the_audits(record):
        return
    what = "the shards that the run read have the index that it names"
    if uri is None:
        yield Check(what, NOT_CHECKED, "the run doesn't say where they are: name their place with --run-shards")
        return
    there = index_in(uri, what, "--run-shards")
    if isinstance(there, Check):
        yield there
        return
    yield compared(what, there.sha256, wanted)
    if there.sha256 != wanted:
        return
    teacher = record["models"]["teacher"]["sha256"]
    yield compared("the shards that the run read name this teacher", there.index.card.teacher_sha256, teacher)
    yield from each_shard(there, there.listed, " of the run", "--run-shards")


@dataclass(frozen=True)
class Shards:
    """A run of synth generate, and the hash of its index, which it has when it is complete."""

    store: Store
    index: Index
    sha256: str | None

    @property
    def listed(self) -> dict[str, str]:
        """Each shard's hash, by its name, as the index has them."""
        return {entry.name: entry.sha256 for entry in self.index.entries.values()}


def index_in(uri: str, what: str, option: str) -> Shards | Check:
    """The run in that place; where there is none to be read, why `what` was not checked."""
    try:
        store = open_store(uri)
        index = find_index(store)
        digest = index_sha256(store) if index and index.complete else None
    except UserError as error:
        return Check(what, NOT_CHECKED, str(error))
    if index is None:
        return Check(what, NOT_CHECKED, f"there is no run in {uri}: name its place now with {option}")
    return Shards(store, index, digest)


def each_shard(there: Shards, wanted: Mapping[str, str], whose: str, option: str) -> Iterator[Check]:
    for name, digest in wanted.items():
        look = partial(shard_sha256, there.store, name)
        yield looked_up(f"{name}{whose}", look, digest, f"{there.store}/{name}", option)
