"""What a record of an audit of points must have beyond the schema's form, as `consistency` has it for classes."""

from __future__ import annotations

from collections.abc import Iterator

from unlearn.auditing.record.record import MODEL, ORIGINAL, RETRAINED
from unlearn.report.consistency import Record, confidence, leaves, long_texts, measurements, origin, refuse_first


def check_points_consistent(record: Record, name: str) -> None:
    """Raise UserError at the first part of the record that doesn't fit the others. `name` is the file."""
    refuse_first(faults(record), name)


def faults(record: Record) -> Iterator[str]:
    yield from leaves(record)
    yield from long_texts(record)
    yield from confidence(record)
    yield from origin(record["origin"])
    yield from measurements(record["measurements"])
    yield from points(record)


def points(record: Record) -> Iterator[str]:
    """Every model calls each point one of the classes, and all points were shown to the same models."""
    classes, first = set(record["class_names"]), record["points"][0]["called"]
    count = {subject: len(calls) for subject, calls in first.items()}
    if not {ORIGINAL, MODEL} <= set(count) or not all(count.values()):
        yield "it does not say what the original and this model call the points"
    if count.get(RETRAINED, 0) != len(record["models"]["references"]):
        yield "its points were shown to other retrained models than it names"
    for point in record["points"]:
        if {subject: len(calls) for subject, calls in point["called"].items()} != count:
            yield f"the point {point['file'][:40]} was shown to other models than the first"
        if not {point["label"], *(name for calls in point["called"].values() for name in calls)} <= classes:
            yield f"the point {point['file'][:40]} is called what is no class"
    for m in record["measurements"]:
        for subject, reading in m["readings"].items():
            if len(reading["values"]) != count.get(subject, 0):
                yield f"{m['name']} of {subject} has not one row for each model"
