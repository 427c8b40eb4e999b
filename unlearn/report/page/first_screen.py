"""The first screen: the question, the answer, the few numbers that it rests on, and what still holds the class."""

from __future__ import annotations

from typing import Any

from unlearn.auditing.claim import claim
from unlearn.auditing.judgement.controls import self_check
from unlearn.auditing.judgement.verdict import LIKE_RETRAINED, TRACES, UNDECIDED
from unlearn.auditing.record.record import MASKED, MODEL, ORIGINAL, RETRAINED, forgotten_in_words
from unlearn.report.page import charts
from unlearn.report.page.tables import Record, Table, reading_cell, title_of
from unlearn.report.places import run_provenance, run_read_the_audits, texts_in

COLOURS = {LIKE_RETRAINED: "good", TRACES: "warn", UNDECIDED: "warn"}  # of a conclusion, as CSS classes
COLUMNS = (MODEL, RETRAINED, MASKED, ORIGINAL)


def first_screen(record: Record) -> dict[str, Any]:
    verdict, models = record["verdict"], record["models"]
    failed = self_check(record["controls"])
    shown = [m for m in record["measurements"] if m["key"]]
    return {
        "classes": forgotten_in_words(record),
        "student": models["student"]["sha256"][:12],
        "architecture": models["student"]["architecture"],
        "teacher": models["teacher"]["sha256"][:12],
        "references": len(models["references"]),
        "images": record["images"],
        "colour": "bad" if failed or record["origin"]["problems"] else COLOURS.get(verdict["conclusion"], "bad"),
        "conclusion": verdict["conclusion"].capitalize(),
        "failed": failed,
        "sentence": verdict["sentence"],
        "claim": claim(record),
        "reasons": verdict["reasons"],
        "numbers": numbers(shown, record) if shown else None,
        "chart": charts.key_measures(shown, record) if any(m["unit"] == "%" for m in shown) else None,
        "problems": record["origin"]["problems"],
        "holders": holders(record),
    }


def numbers(shown: list[Record], record: Record) -> Table:
    rows = [(title_of(m), [reading_cell(m, subject, record) for subject in COLUMNS]) for m in shown]
    per_cent = f"{100 * record['settings']['confidence']:g} %"
    return Table(
        f"The numbers that matter most: the mean, and below it the mean's {per_cent} interval", ["", *COLUMNS], rows
    )


def holders(record: Record) -> dict[str, Any]:
    """What still holds the class beside the model."""
    shards, data = record["origin"]["shards"], record["request"]["data"]
    return {
        "original": record["models"]["teacher"]["path"],
        "data": data and data["name"],
        "run_shards": other_shards(record),
        "shards": shards and shards["uri"],
        "shards_draw_it": bool(shards) and bool(set(shards["plan"]["classes"]) & set(record["forget"])),
        "pictures": any(name.startswith("resurrection-") for name in record["pictures"]),
    }


def other_shards(record: Record) -> str | None:
    """Where the shards that the student's run read were, if they are not just the audit's."""
    named = texts_in(run_provenance(record).get("shards"))
    return " and ".join(named) if named and not run_read_the_audits(record) else None
