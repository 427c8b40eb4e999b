"""A record from elsewhere may have the schema's form and still not fit together. It is refused in one line."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synth.basics.errors import UserError
from unlearn.auditing.audit_folder import AUDIT
from unlearn.auditing.record.schema import check_record, read_record
from unlearn.report.consistency import check_consistent
from unlearn.report.file import read_report
from unlearn.report.page.page import page
from unlearn.report.places import Places
from unlearn.report.verify.chain import claims
from unlearn.report.verify.conclusions import conclusions
from unlearn.report.verify.values import values
from unlearn.report.verify.verify import verify
from unlearn.report.write import write_report

Record = dict[str, Any]


def named(record: Record, name: str) -> Record:
    return next(m for m in record["measurements"] if m["name"] == name)


def reading(record: Record, name: str = "probe-1") -> Record:
    return named(record, name)["readings"]["this model"]


def run(record: Record, metrics: list[Record], samples: object = None) -> None:
    record["origin"]["run"] = {"settings": {}, "provenance": {"samples": samples}, "metrics": metrics}


def curve(record: Record) -> Record:
    return named(record, "relearn-5")["details"]["curves"]["original"][0]


def recognised(record: Record, **changes: object) -> None:
    shares = dict.fromkeys(("image", "mirrored", "shifted", "cropped", "halved", "grey"), 50.0)
    honest = {"images": 8, "original": shares, "counted": ["halved"], "retain_images": 7, "references": [90.0, 80.0]}
    record["recognition"] = {**honest, **changes}


HOSTILE: dict[str, tuple[Callable[[Record], object], str]] = {
    "a number whose square is infinite": (lambda r: reading(r).update(mean=1e200), "a number above 1e"),
    "half of a character": (lambda r: r["models"]["student"].update(path="\ud800"), "is not text"),
    "a path with a zero byte": (lambda r: r["models"]["student"].update(path="a\0b"), "is not text"),
    "a name with a zero byte": (lambda r: r["settings"].update({"a\0b": 1}), "is not text"),
    "a reference that judged nothing": (lambda r: recognised(r, references=[90.0]), "by 1 references, not 2"),
    "references that judged no image": (lambda r: recognised(r, retain_images=0), "by 2 references, not 0"),
    "more retained images than images": (lambda r: recognised(r, retain_images=9), "more images of the retain classes"),
    "no confidence": (lambda r: r["settings"].pop("confidence"), "its setting confidence"),
    "confidence as text": (lambda r: r["settings"].update(confidence="0.95"), "its setting confidence"),
    "certainty": (lambda r: r["settings"].update(confidence=1.0), "its setting confidence"),
    "a class that is not there": (lambda r: r.update(forget=[10]), "it forgets class 10 of 10"),
    "samples that are no counts": (lambda r: run(r, [], {"kept": "many"}), "no counts of samples"),
    "samples that are a list": (lambda r: run(r, [], [1]), "no counts of samples"),
    "metrics without a step": (lambda r: run(r, [{"loss": 1.0}]), "metrics without a step"),
    "one name twice": (lambda r: r["measurements"].append(r["measurements"][0]), "have one name"),
    "no value of the model": (lambda r: named(r, "probe-1")["readings"].pop("this model"), "no value of this model"),
    "repeats without a partner": (lambda r: reading(r)["values"][0].pop(), "other repeats of this model"),
    "more than 100 %": (lambda r: reading(r, "accuracy-forget")["values"].__setitem__(0, [170.0]), "above 100 %"),
    "a confusion of other classes": (
        lambda r: named(r, "accuracy-forget")["details"]["confusion"]["original"].pop(),
        "is not 10 by 10",
    ),
    "no confusion": (
        lambda r: named(r, "accuracy-forget")["details"]["confusion"].pop("original"),
        "original has no confusion",
    ),
    "a histogram of nothing": (lambda r: r["histograms"][0].update(counts=[]), "has no counts"),
    "a histogram below zero": (lambda r: r["histograms"][0]["counts"].__setitem__(0, -1), "has no counts"),
    "curves of other subjects": (
        lambda r: named(r, "relearn-5")["details"]["curves"].pop("original"),
        "not the curves of its subjects",
    ),
    "a curve too few": (
        lambda r: named(r, "relearn-5")["details"]["curves"]["original"].pop(),
        "not one curve for each value",
    ),
    "curves of other steps": (lambda r: curve(r)["steps"].__setitem__(0, 1), "not the same steps"),
    "a curve that is too short": (lambda r: curve(r)["accuracy"].pop(), "not the same steps"),
    "steps that go back": (
        lambda r: [
            c["steps"].reverse() for lines in named(r, "relearn-5")["details"]["curves"].values() for c in lines
        ],
        "do not ascend",
    ),
    "a curve above 100 %": (lambda r: curve(r)["accuracy"].__setitem__(0, 1e6), "is not between 0 and 100 %"),
    "a picture of no measurement": (
        lambda r: r["measurements"].remove(named(r, "resurrection")),
        "no measurement belongs to the picture",
    ),
}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_record_that_does_not_fit_together_is_refused(hostile: str, audited: Path, tmp_path: Path) -> None:
    change, words = HOSTILE[hostile]
    record = read_record(audited / AUDIT)
    change(record)
    check_record(record)  # the schema alone lets it pass
    (tmp_path / AUDIT).write_text(json.dumps(record))
    for use in (lambda: verify(tmp_path, Places()), lambda: write_report(tmp_path, tmp_path / "report.html")):
        with pytest.raises(UserError, match=f"is not a record that an audit writes: .*{words}"):
            use()
    assert not (tmp_path / "report.html").exists()


def test_an_honest_record_fits_together(audited: Path) -> None:
    record = read_record(audited / AUDIT)
    assert read_report(audited).record == record
    recognised(record)
    check_record(record)
    check_consistent(record, "the record")


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from places_in(value[key], (*path, key))


TRIES = 80
ODD = (None, True, 0, -1, 3, 1e9, "", "\x1b$\\frac<b>", [], {}, [[]], [1.0], {"a": 1})


def changed(record: Record, places: list[tuple[Any, ...]], rng: random.Random) -> Record:
    """The record with one part removed, doubled, or replaced by something odd."""
    found = copy.deepcopy(record)
    *path, last = rng.choice(places)
    inside: Any = found
    for key in path:
        inside = inside[key]
    kind = rng.randrange(4)
    if kind == 0:
        inside.pop(last)
    elif kind == 1 and isinstance(inside, list):
        inside.append(inside[last])
    else:
        inside[last] = rng.choice(ODD)
    return found


FEW = ("accuracy-retain", "accuracy-forget", "confusion-distance", "probe-1", "relearn-5", "resurrection")


def small(record: Record) -> Record:
    """A record with one measurement of each kind, so that judging it is quick."""
    record["measurements"] = [named(record, name) for name in FEW]
    record["verdict"]["findings"] = [f for f in record["verdict"]["findings"] if f["name"] in FEW]
    record["ledger"] = []
    run(record, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}], {"kept": 3, "forget label": 1})
    return record


def test_whatever_passes_can_be_judged_and_drawn(audited: Path) -> None:
    record = small(read_record(audited / AUDIT))
    places, rng, passed = list(places_in(record)), random.Random(0), 0
    for _ in range(TRIES):
        hostile = changed(record, places, rng)
        try:
            check_record(hostile)
            check_consistent(hostile, "the report")
        except UserError:
            continue
        passed += 1
        assert [*values(hostile), *conclusions(hostile), *claims(hostile)]
        if passed % 10 == 0:
            assert page(hostile, {})
    assert passed >= TRIES / 8
