"""The verdict is what the rules make of the values: conclusions, every status, and the words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from unlearn.audit.judgement.controls import controls
from unlearn.audit.judgement.verdict import judge
from unlearn.audit.record.record import Measurement
from unlearn.audit.record.versions import PACKAGE, audit_version
from unlearn.report.verify.checks import BROKEN, HOLDS, NOT_CHECKED, SENSELESS, Check, compared, told
from unlearn.report.verify.values import close


def conclusions(record: Mapping[str, Any]) -> Iterator[Check]:
    what = "the verdict follows from the values by the rules"
    try:
        measurements = [Measurement.from_json(m) for m in record["measurements"]]
        confidence = float(record["settings"]["confidence"])
        verdict = json.loads(json.dumps(asdict(judge(measurements, confidence))))
        known = json.loads(json.dumps(controls(measurements, confidence)))
    except SENSELESS as error:
        yield Check(what, BROKEN, f"the values make no sense ({error!r})")
        return
    judged = record["verdict"]
    statuses = [{f["name"]: f["status"] for f in v["findings"]} for v in (verdict, judged)]
    names = [[(c["subject"], c["conclusion"]) for c in found] for found in (known, record["controls"])]
    for check in (
        compared(what, verdict["conclusion"], judged["conclusion"]),
        compared("every status follows from the values by the rules", *statuses),
        compared("so do the verdicts on the known models", *names),
        words([verdict, known], [judged, record["controls"]]),
    ):
        yield by_these_rules(check, record)


def words(found: object, written: object) -> Check:
    """Reasons, sentences and intervals of the verdicts."""
    what = "so do the verdicts' reasons and intervals"
    if close(found, written):
        return Check(what, HOLDS)
    return Check(what, BROKEN, "they are not what the rules give")


def by_these_rules(check: Check, record: Mapping[str, Any]) -> Check:
    """A record that another version wrote may differ because its rules did: that accuses nobody."""
    writer = record["versions"].get(PACKAGE, "an older version")
    if check.state != BROKEN or writer == audit_version():
        return check
    why = f"by this version's rules: {check.why}; written by {told(writer)}, whose rules may be others"
    return Check(check.what, NOT_CHECKED, f"{why}; this is {audit_version()}: audit anew, or use that version")
