"""An audit's record as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synth.basics.tables import table
from unlearn.audit.judgement.controls import self_check
from unlearn.audit.record.record import SUBJECTS, on_synthetic


def audit_text(record: Mapping[str, Any]) -> str:
    """The verdict, a row a measure over all subjects, and what could not be run."""
    verdict = record["verdict"]
    findings = {f["name"]: f for f in verdict["findings"]}
    subjects = [s for s in SUBJECTS if any(s in m["readings"] for m in record["measurements"])]
    rows = [
        [m["name"] + (" *" if m["source"] == "synthetic" else ""), *(cell(m, s) for s in subjects), status(m, findings)]
        for m in record["measurements"]
    ]
    failed = self_check(record["controls"])
    forget = ", ".join(record["class_names"][c] for c in record["forget"])
    parts = [
        f"What is left of class {forget}? {verdict['conclusion'].upper()}",
        *([failed] if failed else []),
        verdict["sentence"],
        *(f"  - {reason}" for reason in verdict["reasons"]),
        "The same rules on models whose answer is known: "
        + "; ".join(f"{c['subject']}: {c['conclusion']}" for c in record["controls"]),
        "",
        f"Judged on {record['images'] or 'the weights alone'}; mean [95 % interval]."
        if record["settings"].get("confidence") == 0.95
        else f"Judged on {record['images'] or 'the weights alone'}; mean [interval].",
        table(["measure", *subjects, "against retrained"], rows),
    ]
    if on_synthetic(record):
        parts.append("* on synthetic hold-outs: a proxy, to be read beside the original's own value")
    for line in record["not_run"]:
        parts.append(f"not run: {line['name']}: {line['why']}. To make it possible: {line['cure']}.")
    return "\n".join(parts)


def cell(measurement: Mapping[str, Any], subject: str) -> str:
    reading = measurement["readings"].get(subject)
    if reading is None:
        return "-"
    return " ".join([number(reading["mean"]), *interval(reading)])


def interval(reading: Mapping[str, Any]) -> list[str]:
    """[low, high]; nothing for a single value, which says nothing of its error."""
    if reading["low"] == reading["high"]:
        return []
    return [f"[{number(reading['low'])}, {number(reading['high'])}]"]


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def status(measurement: Mapping[str, Any], findings: Mapping[str, Any]) -> str:
    if measurement["quality"]:
        return "(not judged)"
    finding = findings[measurement["name"]]
    return finding["status"]
