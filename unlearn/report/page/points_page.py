"""The page of an audit of points: a function of its record and its pictures only."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping

from markupsafe import Markup

from unlearn.auditing.points import point_measures, point_verdict
from unlearn.auditing.points.lineup import LINEUP
from unlearn.auditing.record.record import MODEL, ORIGINAL, RETRAINED
from unlearn.auditing.record.versions import page_version
from unlearn.report.file import embed
from unlearn.report.page.first_screen import COLOURS
from unlearn.report.page.inputs import inputs
from unlearn.report.page.page import environment
from unlearn.report.page.tables import Record, Table, finding_of, reading_cell, text_row, title_of

MOST_POINTS = 1000  # rows of the page's table


def points_page(record: Record, pictures: Mapping[str, bytes]) -> str:
    """The whole file. The policy in its head lets no request leave, whatever a record says."""
    groups = Counter(point["group"] for point in record["points"])
    view = {
        "count": f"{len(record['points']):,}",
        "groups": ", ".join(f"{count:,} {name}" for name, count in groups.most_common()),
        "verdict": record["verdict"],
        "conclusion": record["verdict"]["conclusion"].capitalize(),
        "colour": "bad" if record["failed_controls"] else COLOURS.get(record["verdict"]["conclusion"], "bad"),
        "failed": record["failed_controls"],
        "doubts": record["doubts"],
        "measures": measures(record),
        "known": known(record),
        "pictures": [base64.b64encode(data).decode() for _, data in sorted(pictures.items())],
        "points": points_table(record),
        "not_run": record["not_run"],
        "inputs": inputs(record),
        "rules": point_verdict.__doc__,
        "definitions": point_measures.__doc__,
        "version": page_version(),
        "embedded_record": Markup(embed(record)),
    }
    return environment().get_template("points_page.html.j2").render(view)


def measures(record: Record) -> Table:
    there = [subject for subject in LINEUP if any(subject in m["readings"] for m in record["measurements"])]
    rows = []
    for m in record["measurements"]:
        finding = finding_of(m, record)
        status = finding["status"] if finding else "not judged"
        cells = [reading_cell(m, subject, record) for subject in there]
        rows.append((title_of(m), [*cells, *text_row("", status)[1]]))
    return Table("Every measure: the mean, and below it the mean's interval", ["", *there, "this model is"], rows)


def known(record: Record) -> Table:
    rows = [text_row(c["subject"], c["conclusion"], "; ".join(c["reasons"])) for c in record["controls"]]
    return Table("The same rules on models whose answer is known", ["", "conclusion", "reasons"], rows, words=True)


def points_table(record: Record) -> Table:
    asked = [subject for subject in (ORIGINAL, MODEL, RETRAINED) if subject in record["points"][0]["called"]]
    rows = [
        text_row(point["file"], point["group"], point["label"], *(", ".join(point["called"].get(s, ())) for s in asked))
        for point in record["points"][:MOST_POINTS]
    ]
    return Table("Every point, and what the models call it", ["", "group", "label", *asked], rows, words=True)
