"""`unlearn verify`: the chain of hashes from checkpoint through shards to student; the numbers, the verdict and the page once more.

Each link is a check with an answer of its own: holds, broken, or not checked, where a file isn't there to be looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unlearn.audit.record.versions import page_version
from unlearn.report.file import page_text, pictures_in, pictures_of, read_report
from unlearn.report.page.page import page, writer_of
from unlearn.report.places import Places, check_places
from unlearn.report.verify.chain import chain
from unlearn.report.verify.checks import BROKEN, HOLDS, NOT_CHECKED, SENSELESS, Check, told
from unlearn.report.verify.conclusions import conclusions
from unlearn.report.verify.values import values


def verify(report: Path, places: Places) -> list[Check]:
    """Every check of a page, an audit.json, or an audit's folder.

    Raises:
        UsageError: a place that the user names is not there.
    """
    record = read_report(report)
    check_places(record, places)
    return [
        *values(record),
        *conclusions(record),
        *chain(record, places),
        *pictures(report, record),
        *visible(report, record),
    ]


def pictures(report: Path, record: Mapping[str, Any]) -> Iterator[Check]:
    """The pictures are the ones that the audit made."""
    text = None if report.is_dir() else page_text(report)
    found = pictures_of(report, record).values() if text is None else pictures_in(text)
    digests = {hashlib.sha256(data).hexdigest() for data in found}
    wanted = set(record["pictures"].values())
    if digests == wanted:
        yield Check("the pictures are the audit's", HOLDS)
    elif digests < wanted:
        yield Check(
            "the pictures are the audit's", NOT_CHECKED, f"{len(wanted - digests)} of {len(wanted)} are not there"
        )
    else:
        yield Check("the pictures are the audit's", BROKEN, f"{len(digests - wanted)} are not of the audit")


def visible(report: Path, record: Mapping[str, Any]) -> Iterator[Check]:
    """What a reader of the page sees is what its record says: the page is rendered anew, from that record and the page's own
    pictures, and compared byte for byte. Only the code that wrote a page can do so.
    """
    text = None if report.is_dir() else page_text(report)
    if text is None:
        return
    what, writer = "the page shows what its record says", writer_of(text)
    if writer != page_version():
        why = f"written by {told(writer or 'an older version')}, and this is {page_version()}"
        yield Check(
            what, NOT_CHECKED, f"{why}: render it anew with 'unlearn report {report} -o NEW.html', and read that"
        )
        return
    try:
        again = page(record, pictures_of(report, record))
    except SENSELESS as error:
        yield Check(what, BROKEN, f"its record makes no page ({error!r})")
        return
    if again == text:
        yield Check(what, HOLDS)
    else:
        yield Check(what, BROKEN, difference(text, again))


def difference(found: str, wanted: str) -> str:
    """Where two texts part, with some of both."""
    shorter = min(len(found), len(wanted))
    place = next((n for n in range(shorter) if found[n] != wanted[n]), shorter)
    start = max(0, place - 20)
    return f"it has {found[start : place + 40]!r} where the record makes {wanted[start : place + 40]!r}"
