"""The verdict is what the rules make of the values: its conclusion, every status, and the words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from unlearn.auditing.judgement.controls import controls
from unlearn.auditing.judgement.verdict import judge
from unlearn.auditing.record.record import Measurement
from unlearn.auditing.record.versions import PACKAGE, audit_version
from unlearn.report.printable import printable
from unlearn.report.verify.checks import BROKEN, HOLDS, NOT_CHECKED, Check, compared
from unlearn.report.verify.values import close


def conclusions(record: Mapping[str, Any]) -> Iterator[Check]:
    measurements = [Measurement.from_json(m) for m in record["measurements"]]
    confidence = record["settings"]["confidence"]
    verdict = json.loads(json.dumps(asdict(judge(measurements, confidence))))
    known = json.loads(json.dumps(controls(measurements, confidence)))
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
