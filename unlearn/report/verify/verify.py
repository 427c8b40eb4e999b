"""`unlearn verify`: the numbers, the verdict, the chain of hashes from checkpoint to student, and the page, once more.

Each check has an answer of its own: it holds, it is broken, or it was not checked because a file isn't there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unlearn.report.file import Report, read_report
from unlearn.report.page.page import page_version, writer_of
from unlearn.report.page.render import render
from unlearn.report.places import Places, is_of_points, locate
from unlearn.report.printable import printable
from unlearn.report.verify.chain import chain
from unlearn.report.verify.checks import BROKEN, HOLDS, NOT_CHECKED, Check
from unlearn.report.verify.conclusions import conclusions, conclusions_on_points
from unlearn.report.verify.point_values import point_values, points_folder
from unlearn.report.verify.values import values


def verify(path: Path, places: Places) -> list[Check]:
    """Every check of a page, an audit.json, or an audit's folder.

    Raises:
        UserError: the file holds no report.
        UsageError: a place that the user names is not there.
    """
    report = read_report(path)
    located = locate(report.record, places)
    of_points = is_of_points(report.record)
    return [
        *(point_values(report.record) if of_points else values(report.record)),
        *(conclusions_on_points(report.record) if of_points else conclusions(report.record)),
        *chain(report.record, located),
        *(points_folder(report.record, located.points) if of_points else ()),
        pictures(report),
        *visible(report),
    ]


def pictures(report: Report) -> Check:
    """The pictures are the ones that the audit made."""
    what = "the pictures are the audit's"
    if report.foreign:
        return Check(what, BROKEN, f"the audit did not make {len(report.foreign)} of them")
    if report.missing:
        total = len(set(report.record["pictures"].values()))
        return Check(what, NOT_CHECKED, f"{len(report.missing)} of {total} are not there")
    return Check(what, HOLDS)


def visible(report: Report) -> Iterator[Check]:
    """A reader of the page sees what its record says. The page is rendered again from its record and its pictures, and
    the two texts are compared byte for byte. Only the code that wrote a page can do so.
    """
    if report.text is None:
        return
    what, writer = "the page shows what its record says", writer_of(report.text)
    if writer != page_version():
        why = f"written by {printable(writer or 'an older version')}, and this is {page_version()}"
        cure = f"render it again with 'unlearn report {report.path} -o NEW.html', and read that"
        yield Check(what, NOT_CHECKED, f"{why}: {cure}")
        return
    again = render(report.record, report.pictures)
    yield Check(what, HOLDS) if again == report.text else Check(what, BROKEN, first_difference_in(report.text, again))


def first_difference_in(found: str, expected: str) -> str:
    """Where two texts part, with some of both."""
    shorter = min(len(found), len(expected))
    place = next((n for n in range(shorter) if found[n] != expected[n]), shorter)
    start = max(0, place - 20)
    return f"it has {found[start : place + 40]!r} where the record makes {expected[start : place + 40]!r}"
