"""`unlearn verify`: the chain of hashes from checkpoint through shards to student, and the verdict from the numbers, once more.

Each link is a check with an answer of its own: holds, broken, or not checked, where a file isn't there to be looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from synth.errors import UserError
from synth.index import INDEX, read_index
from synth.store import Store, open_store
from unlearn.audit.record import Measurement
from unlearn.audit.verdict import controls, judge
from unlearn.report.document import page_text, pictures_in, read_pictures, read_report

HOLDS, BROKEN, NOT_CHECKED = "holds", "broken", "not checked"


@dataclass(frozen=True)
class Check:
    """One link of the chain."""

    what: str
    state: str
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the files are now; None where they are looked for as the record has them."""

    teacher: Path | None = None
    student: Path | None = None
    shards: str | None = None


def verify(report: Path, places: Places) -> list[Check]:
    record = read_report(report)
    return [
        *numbers(record),
        *files(record, places),
        *claims(record),
        *shards(record, places),
        *pictures(report, record),
    ]


def compared(what: str, found: object, wanted: object) -> Check:
    if found == wanted:
        return Check(what, HOLDS)
    return Check(what, BROKEN, f"{shown(found)} instead of {shown(wanted)}")


def shown(value: object) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)[:200]


def numbers(record: Mapping[str, Any]) -> Iterator[Check]:
    """The verdict is what the rules make of the values."""
    try:
        measurements = [Measurement.from_json(m) for m in record["measurements"]]
        confidence = float(record["settings"]["confidence"])
        for m, raw in zip(measurements, record["measurements"], strict=True):
            for subject, reading in m.readings.items():
                if abs(reading.mean - raw["readings"][subject]["mean"]) > 1e-9 * (1 + abs(reading.mean)):
                    yield Check(f"the mean of {m.name}, {subject}", BROKEN, "it isn't the mean of its values")
        verdict = asdict(judge(measurements, confidence))
        conclusion = record["verdict"]["conclusion"]
        yield compared("the verdict follows from the values by the rules", verdict["conclusion"], conclusion)
        statuses = [{f["name"]: f["status"] for f in v["findings"]} for v in (verdict, record["verdict"])]
        yield compared("every status follows from the values by the rules", *statuses)
        told = [[c["conclusion"] for c in found] for found in (controls(measurements, confidence), record["controls"])]
        yield compared("so do the verdicts on the known models", *told)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        yield Check("the verdict follows from the values by the rules", BROKEN, f"the values make no sense ({error})")


def files(record: Mapping[str, Any], places: Places) -> Iterator[Check]:
    """The models are the ones that were audited."""
    models = record["models"]
    named: list[tuple[str, Path, str]] = [
        ("the teacher", places.teacher or Path(models["teacher"]["path"]), models["teacher"]["sha256"]),
        ("the student", places.student or Path(models["student"]["path"]), models["student"]["sha256"]),
        *(("a retrained model", Path(m["path"]), m["sha256"]) for m in models["references"]),
    ]
    for name, path, digest in named:
        yield looked_up(f"{name} is the one that was audited", partial(sha256_of, path), digest, str(path))


def looked_up(what: str, look: Callable[[], object], wanted: object, where: str) -> Check:
    try:
        return compared(what, look(), wanted)
    except FileNotFoundError:
        return Check(what, NOT_CHECKED, f"{where} is not there: name its place")
    except (OSError, UserError) as error:
        return Check(what, NOT_CHECKED, str(error))


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    if run:
        provenance = run["provenance"]
        yield compared("the run names this student", provenance.get("student_sha256"), student)
        yield compared("the run names this teacher", provenance.get("teacher_sha256"), teacher)
        if made and made["index_sha256"] and provenance.get("index_sha256"):
            yield compared("the run names these shards", provenance["index_sha256"], made["index_sha256"])


def shards(record: Mapping[str, Any], places: Places) -> Iterator[Check]:
    """Each shard is the one that the index, and the record, have."""
    made = record["origin"]["shards"]
    if made is None:
        return
    uri = places.shards or made["uri"]
    store = open_store(uri)
    try:
        digest = hashlib.sha256(store.read(INDEX)).hexdigest()
        index = read_index(store)
    except (FileNotFoundError, UserError) as error:
        reason = f"{uri} is not there: name it with --shards" if isinstance(error, FileNotFoundError) else str(error)
        yield Check("the shards' index is the one that was audited", NOT_CHECKED, reason)
        return
    yield compared("the shards' index is the one that was audited", digest, made["index_sha256"])
    listed = {entry.name: entry.sha256 for entry in index.entries.values()}
    yield compared("the index lists the shards of the record", listed, made["shards"])
    for name, wanted in made["shards"].items():
        yield looked_up(name, partial(shard_sha256, store, name), wanted, f"{uri}/{name}")


def pictures(report: Path, record: Mapping[str, Any]) -> Iterator[Check]:
    """The pictures are the ones that the audit made."""
    text = None if report.is_dir() else page_text(report)
    if text is None:
        found = read_pictures(report if report.is_dir() else report.parent, record)
        digests = {hashlib.sha256(data).hexdigest() for data in found.values()}
    else:
        digests = {hashlib.sha256(data).hexdigest() for data in pictures_in(text)}
    wanted = set(record["pictures"].values())
    if digests == wanted:
        yield Check("the pictures are the audit's", HOLDS)
    elif digests < wanted:
        yield Check(
            "the pictures are the audit's", NOT_CHECKED, f"{len(wanted - digests)} of {len(wanted)} are not there"
        )
    else:
        yield Check("the pictures are the audit's", BROKEN, f"{len(digests - wanted)} are not of the audit")
