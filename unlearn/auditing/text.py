"""An audit's record as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synth.basics.tables import table
from unlearn.auditing.claim import claim
from unlearn.auditing.judgement.controls import self_check
from unlearn.auditing.record.range_words import in_its_words
from unlearn.auditing.record.record import SUBJECTS, forgotten_in_words, on_synthetic, under_copies


def audit_text(record: Mapping[str, Any]) -> str:
    """The verdict, a table with one row per measure and one column per subject, and what could not run."""
    verdict = record["verdict"]
    findings = {f["name"]: f for f in verdict["findings"]}
    subjects = [s for s in SUBJECTS if any(s in m["readings"] for m in record["measurements"])]
    rows = []
    for m in record["measurements"]:
        name = m["name"] + (" *" if m["source"] == "synthetic" else "")
        rows.append([name, *(cell(m, subject) for subject in subjects), status_words(m, findings)])
    failed = self_check(record["controls"])
    known = "; ".join(f"{c['subject']}: {c['conclusion']}" for c in record["controls"])
    parts = [f"What is left of {forgotten_in_words(record)}? {verdict['conclusion'].upper()}"]
    if failed:
        parts.append(failed)
    parts += [f"Do not rely on the student's origin: {problem}." for problem in record["origin"]["problems"]]
    parts.append(verdict["sentence"])
    if claimed := claim(record):
        parts.append(claimed)
    parts += [f"  - {reason}" for reason in verdict["reasons"]]
    parts += [
        f"The same rules on models whose answer is known: {known}",
        "",
        f"Judged on {record['images'] or 'the weights only'}; mean [{100 * record['settings']['confidence']:g} % "
        "interval].",
        table(["measure", *subjects, "against retrained"], rows),
    ]
    if on_synthetic(record):
        parts.append("* on synthetic hold-outs: a proxy; compare it with the original's own value")
    if record.get("recognition"):
        parts.append(recognition_words(record["recognition"]))
    for line in record["not_run"]:
        parts.append(f"not run: {line['name']}: {line['why']}. To make it possible: {line['cure']}.")
    return in_its_words("\n".join(parts), record)


def recognition_words(recognition: Mapping[str, Any]) -> str:
    """How well the shards' images are recognised, in one sentence."""
    seen = recognition["references"]
    mean = f"{sum(seen) / len(seen):.1f} %" if seen else ""
    by_others = f", and the retrained models recognise {mean} of the images of the other classes" if seen else ""
    return (
        f"The shards' images: the original recognises {under_copies(recognition):.1f} % of changed copies "
        f"({', '.join(recognition['counted'])}){by_others}."
    )


def cell(measurement: Mapping[str, Any], subject: str) -> str:
    reading = measurement["readings"].get(subject)
    if reading is None:
        return "-"
    return " ".join([number(reading["mean"]), *interval(reading)])


def interval(reading: Mapping[str, Any]) -> list[str]:
    """[low, high]; nothing for a single value, whose error is not known."""
    if reading["low"] == reading["high"]:
        return []
    return [f"[{number(reading['low'])}, {number(reading['high'])}]"]


def number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def status_words(measurement: Mapping[str, Any], findings: Mapping[str, Any]) -> str:
    if measurement["quality"]:
        return "(not judged)"
    return findings[measurement["name"]]["status"]
