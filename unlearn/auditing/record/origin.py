"""Where a student comes from: its run's settings and metrics, and the shards with their hashes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from synth.basics.foreign_json import parse_object
from synth.basics.regular_files import read_regular
from synth.checkpoint.card import check_notes
from synth.checkpoint.file import SETTINGS, STUDENT
from synth.shards.index import index_sha256, read_index
from synth.shards.store import open_store
from unlearn.run.folder import LARGEST_METRICS, LARGEST_SETTINGS, METRICS, PROVENANCE

MOST_METRICS = 500  # lines in a report, besides the last one


def describe_origin(student: Path, student_sha256: str | None, shards: str | None) -> dict[str, Any]:
    """The record's `origin`: the run that made the student, what contradicts it, and the audit's shards."""
    run, problems = read_run(student, student_sha256)
    return {"run": run, "problems": problems, "shards": facts_of_shards(shards) if shards else None}


def run_of(folder: Path, student_sha256: str | None) -> dict[str, Any] | None:
    """The folder's run if it made this student; None if there is none, or if it contradicts the student."""
    return read_run(folder / STUDENT, student_sha256)[0]


def read_run(student: Path, student_sha256: str | None) -> tuple[dict[str, Any] | None, list[str]]:
    """The run in the student's folder if it made the student, and how the folder contradicts the student.

    A student in a folder without a run, or one of another name than the run's final student, such as an earlier one
    that --keep-students kept, is no contradiction: the settings and metrics just do not describe it.
    """
    folder = student.parent
    files = {name: folder / name for name in (PROVENANCE, SETTINGS, METRICS)}
    if not (files[PROVENANCE].exists() or files[METRICS].exists()):
        return None, []
    final = student.name == STUDENT
    try:
        provenance = read_object(files[PROVENANCE])
        if provenance.get("student_sha256") != student_sha256:
            problem = (
                f"{student} is not the student that {files[PROVENANCE]} names: one of the two files was changed or "
                "replaced after the run"
            )
            return None, [problem] if final else []
        settings = read_object(files[SETTINGS])
        metrics = thinned(read_lines(files[METRICS]))
        check_notes({"settings": settings, "provenance": provenance}, f"the files in {folder}")
        for line in metrics:
            check_notes(line, f"a line of {files[METRICS]}")
    except FileNotFoundError as error:
        return None, [f"{error.filename} is missing: the run did not finish, or the file was removed"] if final else []
    except (OSError, ValueError) as error:
        return None, [f"the run of {student} cannot be read: {error}"] if final else []
    return {"settings": settings, "provenance": provenance, "metrics": metrics}, []


def read_object(path: Path) -> dict[str, Any]:
    """Raises ValueError if the file holds no JSON object."""
    try:
        return parse_object(read_regular(path, LARGEST_SETTINGS))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The metrics, one JSON object per line; NaN and infinity become null. Raises ValueError for another line."""
    try:
        lines = read_regular(path, LARGEST_METRICS).decode().splitlines()
        return [parse_object(line, constant=lambda _: None) for line in lines]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from error


def thinned(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `MOST_METRICS` lines at equal distances, and the last one."""
    every = -(-len(metrics) // MOST_METRICS) or 1
    kept = metrics[::every]
    if metrics and kept[-1] is not metrics[-1]:
        kept.append(metrics[-1])
    return kept


def facts_of_shards(uri: str) -> dict[str, Any]:
    """The facts of a run of synth generate, and the hashes of its index and of the shards that the index lists."""
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
