"""The record inside the page: put in as JSON that no HTML parser can leave, and read back out of page or audit.json."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth.basics.errors import UserError
from synth.shards.store import Folder
from unlearn.audit.audit import AUDIT, PICTURES
from unlearn.audit.record.schema import LARGEST, parse_record, read_record

OPEN, CLOSE = '<script type="application/json" id="audit-record">', "</script>"
PICTURE = re.compile(r'<img src="data:image/png;base64,([A-Za-z0-9+/=]+)"')


def embed(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True).replace("<", "\\u003c")
    return f"{OPEN}{text}{CLOSE}"


def read_report(path: Path) -> dict[str, Any]:
    """The record of a page, an audit.json, or an audit's folder."""
    if path.is_dir():
        return read_record(path / AUDIT)
    text = page_text(path)
    if text is None:
        return read_record(path)
    start = text.find(OPEN)
    end = text.find(CLOSE, start)
    if start < 0 or end < 0:
        raise UserError(f"{path} holds no audit record: make the page with 'unlearn report'")
    return parse_record(text[start + len(OPEN) : end].encode(), str(path))


def page_text(path: Path) -> str | None:
    """The page's text; None where the file is no page."""
    if path.suffix.lower() not in (".html", ".htm"):
        return None
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} is too large for a report")
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; make it with 'unlearn report'") from error


def pictures_of(path: Path, record: Mapping[str, Any]) -> dict[str, bytes]:
    """The record's pictures: those inside a page, by their hashes, or those beside an audit.json. What is gone is left out."""
    text = None if path.is_dir() else page_text(path)
    if text is None:
        return read_pictures(path if path.is_dir() else path.parent, record)
    inside = {hashlib.sha256(data).hexdigest(): data for data in pictures_in(text)}
    return {name: inside[digest] for name, digest in record["pictures"].items() if digest in inside}


def read_pictures(folder: Path, record: Mapping[str, Any]) -> dict[str, bytes]:
    """The record's pictures beside it; those that are gone are left out."""
    store = Folder(folder / PICTURES)
    there = store.names()
    return {name: store.read(name) for name in record["pictures"] if name in there}


def pictures_in(text: str) -> list[bytes]:
    """The PNGs inside a page. Raises UserError where one is none."""
    try:
        return [base64.b64decode(data) for data in PICTURE.findall(text)]
    except binascii.Error as error:
        raise UserError(f"a picture in the page is damaged ({error}): make the page again") from error
