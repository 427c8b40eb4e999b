"""The record of an audit of points as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from synth.basics.tables import table
from unlearn.auditing.points.lineup import LINEUP
from unlearn.auditing.text import cell, status_words


def points_text(record: Mapping[str, Any]) -> str:
    """The verdict, the groups of the points, a table of the measures, and what could not run."""
    verdict, points = record["verdict"], record["points"]
    groups = Counter(point["group"] for point in points)
    parts = [f"What is left of {len(points):,} points? {verdict['conclusion'].upper()}"]
    if record["failed_controls"]:
        wrong = "; ".join(record["failed_controls"])
        parts.append(f"The audit's check of itself failed: {wrong}. Do not rely on this audit: use more references.")
    parts += [f"Doubtful: {doubt}." for doubt in record["doubts"]]
    parts += [verdict["sentence"], *(f"  - {reason}" for reason in verdict["reasons"])]
    known = "; ".join(f"{control['subject']}: {control['conclusion']}" for control in record["controls"])
    findings = {finding["name"]: finding for finding in verdict["findings"]}
    subjects = [s for s in LINEUP if any(s in m["readings"] for m in record["measurements"])]
    rows = [
        [m["name"], *(cell(m, subject) for subject in subjects), status_words(m, findings)]
        for m in record["measurements"]
    ]
    parts += [
        f"The same rules on models whose answer is known: {known}",
        f"The points: {', '.join(f'{count:,} {name}' for name, count in groups.most_common())}.",
        "",
        table(["measure", *subjects, "against retrained"], rows),
    ]
    parts += [
        f"not run: {line['name']}: {line['why']}. To make it possible: {line['cure']}." for line in record["not_run"]
    ]
    return "\n".join(parts)
