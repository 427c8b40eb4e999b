"""The verdict is what the rules make of the values: its conclusion, every status, and the words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from unlearn.auditing.judgement.controls import controls
from unlearn.auditing.judgement.verdict import Verdict, judge
from unlearn.auditing.points.point_verdict import controls_on_points, failed, judge_points
from unlearn.auditing.record.record import NOT_CHOSEN, Measurement
from unlearn.auditing.record.versions import PACKAGE, audit_version
from unlearn.report.printable import printable
from unlearn.report.verify.checks import BROKEN, HOLDS, NOT_CHECKED, Check, compared
from unlearn.report.verify.values import close


def conclusions(record: Mapping[str, Any]) -> Iterator[Check]:
    """Of an audit of classes."""
    measurements, confidence = measured(record)
    partial = any(n["why"] == NOT_CHOSEN for n in record["not_run"])
    known = controls(measurements, confidence, partial)
    yield from followed(record, judge(measurements, confidence, partial), known)


def conclusions_on_points(record: Mapping[str, Any]) -> Iterator[Check]:
    """Of an audit of points. Its record has also the known models with a wrong conclusion."""
    measurements, confidence = measured(record)
    known = controls_on_points(measurements, confidence)
    yield from followed(record, judge_points(measurements, confidence), known)
    memorised = sum(point["group"] == "memorised" for point in record["points"])
    wrong = compared("the audit's check of itself follows", failed(known, memorised), record["failed_controls"])
    yield by_these_rules(wrong, record)


def measured(record: Mapping[str, Any]) -> tuple[list[Measurement], float]:
    """The measurements of a record, and the confidence of its intervals."""
    return [Measurement.from_json(m) for m in record["measurements"]], record["settings"]["confidence"]


def followed(record: Mapping[str, Any], judged: Verdict, on_known: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Whether the record's verdicts are those that the rules give now."""
    verdict, known = json.loads(json.dumps([asdict(judged), on_known]))
    written = record["verdict"]
    statuses = [{f["name"]: f["status"] for f in v["findings"]} for v in (verdict, written)]
    names = [[(c["subject"], c["conclusion"]) for c in found] for found in (known, record["controls"])]
    for check in (
        compared("the verdict follows from the values by the rules", verdict["conclusion"], written["conclusion"]),
        compared("every status follows from the values by the rules", *statuses),
        compared("the verdicts on the known models follow by the same rules", *names),
        words([verdict, known], [written, record["controls"]]),
    ):
        yield by_these_rules(check, record)


def words(found: object, written: object) -> Check:
    """Reasons, sentences and intervals of the verdicts."""
    what = "the reasons and intervals of all verdicts follow by the same rules"
    return Check(what, HOLDS) if close(found, written) else Check(what, BROKEN, "they are not what the rules give")


def by_these_rules(check: Check, record: Mapping[str, Any]) -> Check:
    """A record that another version wrote may differ because the rules did: such a difference is not a fault of the
    record.
    """
    writer = record["versions"].get(PACKAGE, "an older version")
    if check.state != BROKEN or writer == audit_version():
        return check
    why = f"by this version's rules: {check.why}; written by {printable(writer)}, whose rules may be others"
    return Check(check.what, NOT_CHECKED, f"{why}; this is {audit_version()}: audit again, or use that version")
