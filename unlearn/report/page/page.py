"""The page: question and answer first, then what it rests on. A function of the record and the pictures alone."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from importlib.resources import files

from unlearn.audit.judgement.controls import self_check
from unlearn.audit.judgement.verdict import LIKE_RETRAINED, TRACES, UNDECIDED
from unlearn.audit.record.record import MASKED, MODEL, ORIGINAL, RETRAINED
from unlearn.audit.record.versions import page_version
from unlearn.report.file import embed
from unlearn.report.page import evidence, explain, provenance
from unlearn.report.page.cells import Record, classes_of, reading_cell, title_of
from unlearn.report.page.markup import Markup, element, escaped, folded, joined, listing, section, table

COLOURS = {LIKE_RETRAINED: "good", TRACES: "warn", UNDECIDED: "warn"}
GENERATOR = re.compile(r'<meta name="generator" content="([^"]*)">')
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(record: Record, pictures: Mapping[str, bytes]) -> str:
    """The whole file. The policy in its head lets no request leave, whatever a record says."""
    title = f"What is left of {classes_of(record)}?"
    style = (files("unlearn.report.page") / "report.css").read_text()
    head = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="{escaped(page_version())}">
<link rel="icon" href="data:,">
<title>{escaped(title)}</title>
<style>{style}</style>
</head>
<body>
"""
    sections = [
        evidence.known_answers(record),
        evidence.all_measures(record),
        evidence.relearning(record),
        evidence.images(record, pictures),
        evidence.entropies(record),
        evidence.confusions(record),
        provenance.training(record),
        provenance.disposal(record),
        section("Limitations", listing([*explain.LIMITATIONS, *explain.limits_of(record)])),
        provenance.provenance(record),
        section("How it was judged", element("pre", explain.rules()), *map(definition, explain.definitions())),
    ]
    body = element("main", answer(record, title), joined([s for s in sections if s is not None]))
    return f"{head}{body.text}\n{embed(record)}\n</body>\n</html>\n"


def writer_of(text: str) -> str | None:
    """What a page says of the version that wrote it."""
    found = GENERATOR.search(text)
    return html.unescape(found[1]) if found else None


def answer(record: Record, title: str) -> Markup:
    """The first screen: the question, the answer, and the few numbers that it rests on."""
    verdict = record["verdict"]
    models = record["models"]
    digest = models["student"]["sha256"][:12]
    told = element("strong", verdict["conclusion"].capitalize())
    failed = self_check(record["controls"])
    box = element(
        "div", element("p", told), element("p", element("strong", failed)) if failed else Markup(""),
        element("p", verdict["sentence"]), listing(verdict["reasons"]),
        class_=f"answer {'bad' if failed else COLOURS.get(verdict['conclusion'], 'bad')}",
    )  # fmt: skip
    shown = [m for m in record["measurements"] if m["key"]]
    columns = (MODEL, RETRAINED, MASKED, ORIGINAL)
    rows = [[title_of(m), *(reading_cell(m, s, record) for s in columns)] for m in shown]
    judged = f"Judged on {record['images'] or 'the weights alone'}."
    return element(
        "header",
        element("h1", title),
        element("p", f"Audit of the model {digest} ({models['student']['architecture']}) against its original "
                     f"{models['teacher']['sha256'][:12]}. {judged}"),
        box,
        table("The numbers that matter most: mean, and its interval", ["", *columns], rows) if rows else None,
    )  # fmt: skip


def definition(words: tuple[str, str]) -> Markup:
    name, text = words
    return folded(f"Definition, source and cost: {name}", element("pre", text))
