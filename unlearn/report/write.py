"""`unlearn report`: an audit's folder to one page."""

from __future__ import annotations

from pathlib import Path

from synth.basics.disk import prepare_output, write_file
from synth.basics.errors import UserError
from unlearn.auditing.record.schema import LARGEST
from unlearn.report.file import read_report
from unlearn.report.page.render import render

BEGINS = b"<!doctype html>"


def write_report(path: Path, out: Path) -> int:
    """Write the page, complete or not at all, and return its size in bytes.

    Raises:
        UsageError: there is a file at `out` that is no page.
        UserError: `path` holds no report, one of its pictures is not the audit's, or the page would be too
            large to be read.
    """
    report = read_report(path)
    prepare_output(out, BEGINS, "an HTML page")
    if report.foreign:
        raise UserError(f"{path} has a picture that the audit did not make: make the audit again")
    text = render(report.record, report.pictures).encode()
    if len(text) > LARGEST:
        raise UserError(
            f"the page of {path} would have {len(text) / 2**20:.0f} MiB, more than the {LARGEST // 2**20} that "
            "'unlearn verify' reads: audit fewer models or classes"
        )
    write_file(out, text, "start the same command again")
    return len(text)
