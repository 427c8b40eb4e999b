"""A report in a file: its record, its text and its pictures, read once.

The record lies inside the page as JSON that no HTML parser can leave. It is read back out of a page, or out of an
audit.json.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.basics.disk import sha256_of
from synth.basics.errors import UserError
from synth.basics.regular_files import read_regular
from unlearn.auditing.audit_folder import AUDIT, PICTURES
from unlearn.auditing.points.points_record import parse_points_record
from unlearn.auditing.record.schema import LARGEST, parse_record
from unlearn.report.consistency import check_consistent
from unlearn.report.points_consistency import check_points_consistent

OPEN, CLOSE = '<script type="application/json" id="audit-record">', "</script>"
PICTURE = re.compile(r'<img src="data:image/png;base64,([A-Za-z0-9+/=]+)"')
PAGE_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True)
class Report:
    """A page, or an audit.json with the pictures beside it."""

    path: Path  # as the user gave it
    record: Mapping[str, Any]  # has the schema's form, and its parts fit together
    text: str | None  # the page; None for an audit.json
    found: Mapping[str, bytes]  # every picture in the page or beside the audit.json, by its SHA-256

    @property
    def pictures(self) -> dict[str, bytes]:
        """The pictures of the record that were found, by their names."""
        return {name: self.found[digest] for name, digest in self.record["pictures"].items() if digest in self.found}

    @property
    def missing(self) -> set[str]:
        """The hashes of the record's pictures that were not found."""
        return set(self.record["pictures"].values()) - set(self.found)

    @property
    def foreign(self) -> set[str]:
        """The hashes of pictures that were found and are not in the record."""
        return set(self.found) - set(self.record["pictures"].values())


def read_report(path: Path) -> Report:
    """The report in a page, an audit.json, or an audit's folder, of classes or of points.

    Raises:
        UserError: the file can't be read, or it holds no audit record.
    """
    file = path / AUDIT if path.is_dir() else path
    is_page = file.suffix.lower() in PAGE_SUFFIXES
    try:
        data = read_regular(file, LARGEST)
        text = data.decode() if is_page else None
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        maker = "unlearn report" if is_page else "unlearn audit"
        raise UserError(f"cannot read {file}: {why}; make it with '{maker}'") from error
    written = data if text is None else embedded_in(text, path)
    record = parse_points_record(written, str(path))
    if record is not None:
        check_points_consistent(record, str(path))
    else:
        record = parse_record(written, str(path))
        check_consistent(record, str(path))
    pictures = pictures_beside(file, record) if text is None else pictures_in(text, path)
    return Report(path, record, text, {sha256_of(data): data for data in pictures})


def embed(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True).replace("<", "\\u003c")
    return f"{OPEN}{text}{CLOSE}"


def embedded_in(text: str, path: Path) -> bytes:
    """The record inside a page. Raises UserError where there is none."""
    start = text.find(OPEN)
    end = text.find(CLOSE, start)
    if start < 0 or end < 0:
        raise UserError(f"{path} holds no audit record: make the page with 'unlearn report'")
    return text[start + len(OPEN) : end].encode()


def pictures_in(text: str, path: Path) -> list[bytes]:
    """The PNGs inside a page. Raises UserError where one of them is damaged."""
    try:
        return [base64.b64decode(data) for data in PICTURE.findall(text)]
    except binascii.Error as error:
        raise UserError(
            f"a picture in {path} is damaged ({error}): make the page again with 'unlearn report'"
        ) from error


def pictures_beside(file: Path, record: Mapping[str, Any]) -> Sequence[bytes]:
    """The record's pictures in the folder beside an audit.json. Pictures that are gone are left out."""
    found = []
    for name in record["pictures"]:
        try:
            found.append(read_regular(file.parent / PICTURES / name, LARGEST))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(
                f"cannot read the picture {name} of {file}: {error.strerror}; make the audit again"
            ) from error
    return found
