"""`unlearn report`: an audit's folder to one page."""

from __future__ import annotations

import hashlib
from pathlib import Path

from synth.basics.errors import UserError
from synth.shards.store import Folder
from unlearn.report.file import pictures_of, read_report
from unlearn.report.page.page import page
from unlearn.report.verify.checks import SENSELESS


def write_report(run: Path, out: Path) -> int:
    """Write the page, complete or not at all, and return its size in bytes."""
    record = read_report(run)
    pictures = pictures_of(run, record)
    for name, data in pictures.items():
        if hashlib.sha256(data).hexdigest() != record["pictures"][name]:
            raise UserError(f"the picture {name} is not the one that the audit made: make the audit again")
    try:
        text = page(record, pictures).encode()
    except SENSELESS as error:  # a record of the right form, whose details are none
        raise UserError(f"the details of {run} make no sense ({error!r}): make the audit again") from error
    folder = Folder(out.parent)
    folder.create()
    folder.write(out.name, text)
    return len(text)
