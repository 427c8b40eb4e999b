"""The verdict is what the rules make of the values: conclusions, every status, and the words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from unlearn.audit.known import controls
from unlearn.audit.record import Measurement
from unlearn.audit.verdict import judge
from unlearn.audit.written_by import PACKAGE, audit_version
from unlearn.report.checks import BROKEN, HOLDS, NOT_CHECKED, SENSELESS, Check, compared, told
from unlearn.report.values import close


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
    yield compared(what, verdict["conclusion"], judged["conclusion"])
    statuses = [{f["name"]: f["status"] for f in v["findings"]} for v in (verdict, judged)]
    yield compared("every status follows from the values by the rules", *statuses)
    names = [[(c["subject"], c["conclusion"]) for c in found] for found in (known, record["controls"])]
    yield compared("so do the verdicts on the known models", *names)
    yield words([verdict, known], [judged, record["controls"]], record)


def words(found: object, written: object, record: Mapping[str, Any]) -> Check:
    """Reasons, sentences and intervals of the verdicts. Another version of the rules may put them otherwise."""
    what = "so do the verdicts' reasons and intervals"
    if close(found, written):
        return Check(what, HOLDS)
    writer = record["versions"].get(PACKAGE, "an older version")
    if writer != audit_version():
        return Check(
            what, NOT_CHECKED, f"written by {told(writer)}, whose words may be others; this is {audit_version()}"
        )
    return Check(what, BROKEN, "they are not what the rules give")
