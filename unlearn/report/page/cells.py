"""A measurement's name, values and status as a table shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unlearn.audit.judgement.verdict import INSIDE, MORE, NOT_EVALUATED
from unlearn.audit.record.record import MODEL
from unlearn.audit.text import interval, number
from unlearn.report.page.markup import Content, element, joined

Record = Mapping[str, Any]


def classes_of(record: Record) -> str:
    names = [record["class_names"][c] for c in record["forget"]]
    return f"{'class' if len(names) == 1 else 'classes'} {', '.join(names)}"


def title_of(measurement: Record) -> str:
    unit = f", {measurement['unit']}" if measurement["unit"] else ""
    proxy = " (synthetic images)" if measurement["source"] == "synthetic" else ""
    return f"{measurement['title']}{unit}{proxy}"


def reading_cell(measurement: Record, subject: str, record: Record) -> Content:
    reading = measurement["readings"].get(subject)
    if reading is None:
        return None
    between = [element("small", words) for words in interval(reading)]
    content = joined([number(reading["mean"]), *between], " ")
    return element("td", content, class_=colour(measurement, record)) if subject == MODEL else content


def finding_of(measurement: Record, record: Record) -> Record | None:
    return next((f for f in record["verdict"]["findings"] if f["name"] == measurement["name"]), None)


def colour(measurement: Record, record: Record) -> str:
    finding = finding_of(measurement, record)
    status = finding["status"] if finding else NOT_EVALUATED
    return {INSIDE: "inside", MORE: "more", NOT_EVALUATED: "unknown"}.get(status, "other")
