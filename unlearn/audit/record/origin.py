"""Where a student comes from: its run's settings and metrics, and the shards with their hashes. For the report's chain."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from synth.shards.index import index_sha256, read_index
from synth.shards.store import open_store
from unlearn.run.folder import METRICS, PROVENANCE, SETTINGS

MOST_METRICS = 500  # lines in a report


def describe(student: Path, student_sha256: str | None, shards: str | None) -> dict[str, Any]:
    return {"run": run_of(student.parent, student_sha256), "shards": shards_of(shards) if shards else None}


def run_of(folder: Path, student_sha256: str | None) -> dict[str, Any] | None:
    """The unlearning run that a student came out of; None where it lies elsewhere, or is one of the run's way (--keep-students):
    settings and metrics tell how the last one was made.
    """
    try:
        provenance = json.loads((folder / PROVENANCE).read_text())
        settings = json.loads((folder / SETTINGS).read_text())
        lines = (folder / METRICS).read_text().splitlines()
        metrics = [json.loads(line, parse_constant=lambda _: None) for line in lines]  # a record has no NaN
    except (OSError, ValueError):
        return None
    if provenance.get("student_sha256") != student_sha256:
        return None
    every = -(-len(metrics) // MOST_METRICS) or 1
    return {"settings": settings, "provenance": provenance, "metrics": metrics[::every]}


def shards_of(uri: str) -> dict[str, Any]:
    """The run's facts, the hash of its index, and those of its shards as the index has them."""
    store = open_store(uri)
    index = read_index(store)
    card = dataclasses.asdict(index.card)
    return {
        "uri": uri,
        "complete": index.complete,
        "index_sha256": index_sha256(store) if index.complete else None,
        "teacher_sha256": index.card.teacher_sha256,
        "samples": index.samples,
        "method": index.card.method,
        "settings": card["settings"],
        "plan": card["plan"],
        "versions": card["versions"],
        "shards": {entry.name: entry.sha256 for _, entry in sorted(index.entries.items())},
    }
