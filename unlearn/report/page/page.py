"""The page: question and answer first, then what it rests on. A function of the record and the pictures only.

The modules of this folder prepare plain data from the record; the templates (*.html.j2) hold the structure and the
words.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unlearn.auditing.record.range_words import page_in_its_words
from unlearn.auditing.record.record import on_synthetic
from unlearn.auditing.record.versions import page_version
from unlearn.report.file import embed
from unlearn.report.page.definitions import definitions, rules
from unlearn.report.page.evidence import (
    all_measures,
    confusions,
    drawings,
    entropies,
    known_models,
    recognition,
    relearning,
)
from unlearn.report.page.first_screen import first_screen
from unlearn.report.page.inputs import inputs, training_facts
from unlearn.report.page.tables import Record

GENERATOR = re.compile(r'<meta name="generator" content="([^"]*)">')


def page(record: Record, pictures: Mapping[str, bytes]) -> str:
    """The whole file. The policy in its head lets no request leave, whatever a record says."""
    view = {
        "version": page_version(),
        "first": first_screen(record),
        "known_models": known_models(record),
        "recognition": recognition(record),
        "drawings": drawings(record, pictures),
        "relearning": relearning(record),
        "confusions": confusions(record),
        "entropies": entropies(record),
        "measures": all_measures(record),
        "training": training_facts(record),
        "limits": limits(record),
        "inputs": inputs(record),
        "rules": rules(),
        "definitions": definitions(),
        "embedded_record": Markup(embed(record)),
    }
    return page_in_its_words(environment().get_template("page.html.j2").render(view), record)


@cache
def environment() -> Environment:
    """Everything that comes from a record is escaped, and a name that a view lacks is an error."""
    return Environment(
        loader=PackageLoader("unlearn.report.page", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def limits(record: Record) -> dict[str, object]:
    """The limitations of this record in particular."""
    return {
        "no_real_image": not record["ledger"],
        "synthetic": on_synthetic(record),
        "references": len(record["models"]["references"]),
        "range": bool(record.get("target")),
        "several_classes": len(record["forget"]) > 1 and not record.get("target"),
    }


def writer_of(text: str) -> str | None:
    """The version that wrote a page, as the page names it."""
    found = GENERATOR.search(text)
    return html.unescape(found[1]) if found else None
