"""The page's sections that show what was measured. A section with nothing to show is None."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from unlearn.auditing.judgement.controls import self_check
from unlearn.auditing.record.record import MODEL, ORIGINAL, RETRAINED, SUBJECTS, forgotten_in_words, under_copies
from unlearn.report.page import charts
from unlearn.report.page.charts import Chart
from unlearn.report.page.tables import (
    Cell,
    Record,
    Table,
    between,
    finding_of,
    reading_cell,
    text_row,
    title_of,
)

LARGEST_MATRIX = 20  # classes


def known_models(record: Record) -> dict[str, Any] | None:
    """The rules on models whose answer is known."""
    if not record["controls"]:
        return None
    rows = [text_row(c["subject"], c["conclusion"], "; ".join(c["reasons"])) for c in record["controls"]]
    table = Table("The same rules on known models", ["model", "conclusion", "because"], rows, words=True)
    return {"failed": self_check(record["controls"]), "table": table}


def recognition(record: Record) -> Table | None:
    """How often the shards' images are named by their class: by the original on changed copies, and by the others."""
    found = record.get("recognition")
    if not found:
        return None
    by = found["original"]
    rows = [text_row("original, the images themselves", shown(by["image"]))]
    rows += [text_row(f"original, {name} copies", shown(by[name])) for name in found["counted"]]
    rows.append(text_row("original, all these copies", shown(under_copies(found))))
    rows += [
        text_row(f"retrained {number}, images of the other classes", shown(share))
        for number, share in enumerate(found["references"], 1)
    ]
    caption = f"{found['images']:,} images from the shards that are called by their class, in per cent"
    return Table(caption, ["", "%"], rows)


def shown(share: float) -> str:
    return f"{share:.1f}"


def drawings(record: Record, pictures: Mapping[str, bytes]) -> list[dict[str, str]] | None:
    """Synthesised images from the shards, and the images that each model gives back when it is inverted."""
    found = []
    if "synthesised.png" in pictures:
        alt = "Synthesised images from the shards, one row per class"
        found.append(
            picture(pictures["synthesised.png"], alt, "Before: images that the original gave, from the shards")
        )
    readings = {m["name"]: m["readings"] for m in record["measurements"]}
    for subject in SUBJECTS:
        name = f"resurrection-{subject.replace(' ', '-')}.png"
        if name in pictures:
            others = readings.get("resurrection-others", {}).get(subject)
            caption = resurrected(subject, readings["resurrection"][subject], others, record)
            found.append(picture(pictures[name], f"Images drawn from {caption}; one row per class", caption))
    return found or None


def resurrected(subject: str, reading: Record, others: Record | None, record: Record) -> str:
    models = len(reading["values"])
    which = f"{subject} (the first of {models} models)" if models > 1 else subject
    what = forgotten_in_words(record)
    line = f"{which}: the original recognises {what} in {reading['mean']:.0f} % of all images drawn for it"
    return line if others is None else f"{line}, and in {others['mean']:.0f} % of the others"


def picture(data: bytes, alt: str, caption: str) -> dict[str, str]:
    """A PNG, in base64."""
    return {"png": base64.b64encode(data).decode(), "alt": alt, "caption": caption}


def relearning(record: Record) -> dict[str, Any] | None:
    found = [m for m in record["measurements"] if m["family"] == "relearn"]
    if not found:
        return None
    subjects = [s for s in SUBJECTS if any(s in m["details"]["curves"] for m in found)]
    rows = []
    for m in found:
        curves, index = m["details"]["curves"], m["details"]["anamnesis"]
        cells = [steps_cell(curves.get(subject, ())) for subject in subjects]
        rows.append((m["title"], [*cells, Cell(ratio(index) if index else "-")]))
    caption = (
        "Mean steps to the target, and the Anamnesis Index: this model's steps against the retrained model's (ideal 1)"
    )
    return {
        "charts": [Chart(charts.draw_relearning(m), m["title"]) for m in found],
        "steps": Table(caption, ["relearning", *subjects, "index"], rows),
    }


def steps_cell(curves: Sequence[Record]) -> Cell:
    """The mean number of steps to the target; a lower bound where some runs were cut off before it."""
    if not curves:
        return Cell("-")
    cut, mean = sum(c["censored"] for c in curves), sum(c["reached"] for c in curves) / len(curves)
    return Cell(f"{'≥ ' if cut else ''}{mean:.1f}", f"{cut} of {len(curves)} runs cut off" if cut else "")


def ratio(index: Record) -> str:
    if index["index"] is None or index["bound"] == "unknown":
        return "unknown"
    return f"{'' if index['bound'] == 'exact' else index['bound'] + ' '}{index['index']:.2f}"


def confusions(record: Record) -> dict[str, Any] | None:
    """The classes that the forget images are called by."""
    found = next((m for m in record["measurements"] if m["name"] == "accuracy-forget"), None)
    if found is None:
        return None
    names, whole = record["class_names"], found["details"]["confusion"]
    subjects = [subject for subject in SUBJECTS if subject in whole]
    forgotten = [
        text_row(f"{subject}: true class {names[c]}", *whole[subject][c])
        for subject in subjects
        for c in record["forget"]
    ]
    shares = [text_row(name, *(class_accuracy(whole[s][c], c) for s in subjects)) for c, name in enumerate(names)]
    return {
        "forgotten": Table("Images of the forget classes, by the class that they are called", ["", *names], forgotten),
        "shares": Table("Images that are called by their own class, in per cent", ["", *subjects], shares),
        "matrices": [matrix(subject, whole[subject], names) for subject in matrices_shown(subjects, len(names))],
    }


def matrices_shown(subjects: Sequence[str], classes: int) -> list[str]:
    if classes > LARGEST_MATRIX:
        return []
    return [subject for subject in (ORIGINAL, MODEL, RETRAINED) if subject in subjects]


def matrix(subject: str, counts: Sequence[Sequence[int]], names: Sequence[str]) -> Table:
    rows = [text_row(name, *row) for name, row in zip(names, counts, strict=True)]
    return Table(
        f"Confusion matrix of {subject}: one row per true class, one column per called class", ["", *names], rows
    )


def class_accuracy(called: Sequence[int], true: int) -> str | None:
    """In per cent; None without images."""
    seen = sum(called)
    return f"{100 * called[true] / seen:.1f}" if seen else None


def entropies(record: Record) -> list[Chart] | None:
    if not record["histograms"]:
        return None
    threshold = (record["origin"]["run"] or {"settings": {}})["settings"].get("entropy")
    known = charts.is_number(threshold)
    caption = ", with the threshold of the run's entropy filter" if known else ""
    return [
        Chart(
            charts.draw_entropies(record["histograms"], kind, threshold if known else None),
            f"On {kind} images{caption}",
        )
        for kind in ("forget", "retain")
    ]


def all_measures(record: Record) -> dict[str, Any]:
    subjects = [s for s in SUBJECTS if any(s in m["readings"] for m in record["measurements"])]
    rows = []
    for m in record["measurements"]:
        cells = [reading_cell(m, subject, record) for subject in subjects]
        rows.append((title_of(m), [*cells, status_cell(m, record)]))
    caption = (
        "The mean, and below it the mean's interval. Last column: this model against the retrained models' interval"
    )
    missing = [text_row(n["name"], n["why"], n["cure"]) for n in record["not_run"]]
    header = ["what", "why", "what would make it possible"]
    return {
        "table": Table(caption, ["measure", *subjects, "against retrained"], rows),
        "missing": Table("What could not be run", header, missing, words=True) if missing else None,
    }


def status_cell(measurement: Record, record: Record) -> Cell:
    finding = finding_of(measurement, record)
    if finding is None:
        return Cell("not judged")
    interval = finding["interval"]
    return Cell(finding["status"], between(interval, measurement["unit"]) if interval else "")
