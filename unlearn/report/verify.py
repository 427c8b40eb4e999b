"""`unlearn verify`: the chain of hashes from checkpoint through shards to student; the numbers, the verdict and the page once more.

Each link is a check with an answer of its own: holds, broken, or not checked, where a file isn't there to be looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from synth.errors import UserError
from synth.index import INDEX, find_index
from synth.store import Store, open_store
from synth.teacher import parse_card
from unlearn.audit.origin import run_of
from unlearn.audit.written_by import page_version
from unlearn.report.checks import BROKEN, HOLDS, NOT_CHECKED, SENSELESS, Check, compared, looked_up, told
from unlearn.report.conclusions import conclusions
from unlearn.report.document import page_text, pictures_in, pictures_of, read_report
from unlearn.report.hashes import sha256_of
from unlearn.report.page import page, writer_of
from unlearn.report.places import Places, check_places, models_of, run_index_of, run_shards_of, shards_of
from unlearn.report.values import values


def verify(report: Path, places: Places) -> list[Check]:
    """Every check of a page, an audit.json, or an audit's folder.

    Raises:
        UsageError: a place that the user names is not there.
    """
    record = read_report(report)
    check_places(record, places)
    return [
        *values(record),
        *conclusions(record),
        *files(record, places),
        *cards(record, places),
        *run_files(record, places),
        *claims(record),
        *shards(record, places),
        *run_shards(record, places),
        *pictures(report, record),
        *visible(report, record),
    ]


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
    if run:
        provenance = run["provenance"]
        yield compared("the run names this student", provenance.get("student_sha256"), student)
        yield compared("the run names this teacher", provenance.get("teacher_sha256"), teacher)
        if made and made["index_sha256"] and made["index_sha256"] == provenance.get("index_sha256"):
            yield Check("the run names these shards", HOLDS)


def shards(record: Mapping[str, Any], places: Places) -> Iterator[Check]:
    """Each shard is the one that the index, and the record, have."""
    made, uri = record["origin"]["shards"], shards_of(record, places)
    if uri is None:
        return
    what = "the shards' index is the one that was audited"
    try:
        store = open_store(uri)
        index = find_index(store)
        digest = hashlib.sha256(store.read(INDEX)).hexdigest() if index and index.complete else None
    except UserError as error:
        yield Check(what, NOT_CHECKED, str(error))
        return
    if index is None:
        yield Check(what, NOT_CHECKED, f"there is no run in {uri}: name its place now with --shards")
        return
    if made["index_sha256"] is None:
        yield Check(what, NOT_CHECKED, "the run was still growing then")
    else:
        yield compared(what, digest, made["index_sha256"])
    listed = {entry.name: entry.sha256 for entry in index.entries.values()}
    known = listed if made["complete"] else {name: listed.get(name) for name in made["shards"]}
    yield compared("the index lists the shards of the record", known, made["shards"])
    for name, wanted in made["shards"].items():
        yield looked_up(name, partial(shard_sha256, store, name), wanted, f"{uri}/{name}", "--shards")


def run_shards(record: Mapping[str, Any], places: Places) -> Iterator[Check]:
    """The shards that the student's run read, where they are others than the audit's: hold-outs, or none."""
    made, wanted, uri = record["origin"]["shards"], run_index_of(record), run_shards_of(record, places)
    if wanted is None or (made and made["index_sha256"] == wanted):
        return
    what = "the shards that the run read have the index that it names"
    if uri is None:
        yield Check(what, NOT_CHECKED, "the run doesn't say where they are: name their place with --run-shards")
        return
    try:
        store = open_store(uri)
        index = find_index(store)
        digest = hashlib.sha256(store.read(INDEX)).hexdigest() if index and index.complete else None
    except UserError as error:
        yield Check(what, NOT_CHECKED, str(error))
        return
    if index is None or digest is None:
        yield Check(what, NOT_CHECKED, f"there is no complete run in {uri}: name its place now with --run-shards")
        return
    yield compared(what, digest, wanted)
    if digest != wanted:
        return
    teacher = record["models"]["teacher"]["sha256"]
    yield compared("the shards that the run read name this teacher", index.card.teacher_sha256, teacher)
    for entry in index.entries.values():
        look = partial(shard_sha256, store, entry.name)
        yield looked_up(f"{entry.name} of the run", look, entry.sha256, f"{uri}/{entry.name}", "--run-shards")


def pictures(report: Path, record: Mapping[str, Any]) -> Iterator[Check]:
    """The pictures are the ones that the audit made."""
    text = None if report.is_dir() else page_text(report)
    found = pictures_of(report, record).values() if text is None else pictures_in(text)
    digests = {hashlib.sha256(data).hexdigest() for data in found}
    wanted = set(record["pictures"].values())
    if digests == wanted:
        yield Check("the pictures are the audit's", HOLDS)
    elif digests < wanted:
        yield Check(
            "the pictures are the audit's", NOT_CHECKED, f"{len(wanted - digests)} of {len(wanted)} are not there"
        )
    else:
        yield Check("the pictures are the audit's", BROKEN, f"{len(digests - wanted)} are not of the audit")


def visible(report: Path, record: Mapping[str, Any]) -> Iterator[Check]:
    """What a reader of the page sees is what its record says: the page is rendered anew, from that record and the page's own
    pictures, and compared byte for byte. Only the code that wrote a page can do so.
    """
    text = None if report.is_dir() else page_text(report)
    if text is None:
        return
    what, writer = "the page shows what its record says", writer_of(text)
    if writer != page_version():
        why = f"written by {told(writer or 'an older version')}, and this is {page_version()}"
        yield Check(
            what, NOT_CHECKED, f"{why}: render it anew with 'unlearn report {report} -o NEW.html', and read that"
        )
        return
    try:
        again = page(record, pictures_of(report, record))
    except SENSELESS as error:
        yield Check(what, BROKEN, f"its record makes no page ({error!r})")
        return
    if again == text:
        yield Check(what, HOLDS)
    else:
        yield Check(what, BROKEN, difference(text, again))


def difference(found: str, wanted: str) -> str:
    """Where two texts part, with some of both."""
    shorter = min(len(found), len(wanted))
    place = next((n for n in range(shorter) if found[n] != wanted[n]), shorter)
    start = max(0, place - 20)
    return f"it has {found[start : place + 40]!r} where the record makes {wanted[start : place + 40]!r}"
