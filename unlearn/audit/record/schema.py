"""The published schema of an audit's record, and the check of a record against it."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from synth.basics.errors import UserError

VERSION = 1
LARGEST = 64 * 2**20  # bytes of a record


@cache
def schema() -> dict[str, Any]:
    return json.loads((files("unlearn.audit.record") / "audit.schema.json").read_text())


def check_record(record: Any, name: str = "the audit") -> None:
    """Raise UserError where the record doesn't have the schema's form."""
    import jsonschema

    try:
        jsonschema.Draft202012Validator(schema()).validate(record)
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise UserError(
            f"{name} is no audit record (at {place}: {error.message[:200]}): make it again with 'unlearn audit'"
        ) from error


def finite(text: str) -> float:
    """Raises ValueError for NaN, Infinity, and 1e999, none of which an audit writes."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number of an audit")
    return value


def whole(text: str) -> int:
    """Raises ArithmeticError where no float is as large."""
    float(int(text))
    return int(text)


def parse_record(data: bytes, name: str) -> dict[str, Any]:
    """The record in a file that may come from anywhere."""
    try:
        record = json.loads(data, parse_float=finite, parse_int=whole, parse_constant=finite)
        version = record["format_version"] if isinstance(record, dict) else None
    except (ValueError, KeyError, ArithmeticError, RecursionError) as error:
        raise UserError(f"{name} is no audit record: make it with 'unlearn audit'") from error
    if isinstance(version, int) and version > VERSION:
        raise UserError(f"{name} has format version {version}, newer than {VERSION}: update this package")
    check_record(record, name)
    return record


def read_record(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} is too large for an audit record")
        return parse_record(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; make it with 'unlearn audit'") from error
