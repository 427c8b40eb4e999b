"""The published schema of an audit's record, and the check of a record against it.

audit.schema.json describes everything but the `details` of the measurements: each measure's module declares those
itself (`DETAILS`), and `schema()` merges both.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from synth.basics.errors import UserError
from synth.basics.foreign_json import parse_object
from synth.basics.regular_files import read_regular
from synth.checkpoint.target import Target

VERSION = 2
POINTS_FORMAT = "data-free-unlearning audit of points"  # of the records of `unlearn.auditing.points`
LARGEST = 64 * 2**20  # bytes of a record


@cache
def schema() -> dict[str, Any]:
    """The schema (draft 2020-12) with the details of every measure that is installed."""
    whole = without_details()
    whole["$defs"]["measurement"]["allOf"] = conditions()
    return whole


def without_details() -> dict[str, Any]:
    """The schema in audit.schema.json, which leaves the details of measurements open."""
    found: dict[str, Any] = json.loads((files("unlearn.auditing.record") / "audit.schema.json").read_text())
    return found


def conditions() -> list[dict[str, Any]]:
    """A known family has only the names that its modules declare, and each name has the details that they declare.

    So a reader of the record may rely on a measurement's fields whether it found the measurement by family or by name.
    """
    from unlearn.auditing.measures import modules

    by_family: dict[str, dict[str, Any]] = {}
    for module in modules().values():
        for family, names in module.DETAILS.items():
            by_family.setdefault(family, {}).update(names)
    found = []
    for family, names in by_family.items():
        one_of_them = {"pattern": f"^({'|'.join(names)})$"}
        found.append(when("family", {"const": family}, {"name": one_of_them}))
        for name, details in names.items():
            found.append(when("name", {"pattern": f"^({name})$"}, {"family": {"const": family}, "details": details}))
    return found


def when(field: str, condition: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"properties": {field: condition}}, "then": {"properties": then}}


def check_form(record: Any, form: dict[str, Any], what: str) -> None:
    """Raise UserError if the record does not have the form of a schema. `what` begins the error."""
    import jsonschema

    try:
        jsonschema.Draft202012Validator(form).validate(record)
    except jsonschema.ValidationError as error:
        place = "/".join(map(str, error.absolute_path)) or "the top"
        raise UserError(f"{what} (at {place}: {error.message[:200]}): make it again with 'unlearn audit'") from error


def check_record(record: Any, name: str = "the audit") -> None:
    """Raise UserError if the record does not have the schema's form."""
    check_form(record, schema(), f"{name} is not an audit record")
    try:
        target = Target.from_json(record.get("target"))
        if target is not None and list(target.bin_names) != record["class_names"]:
            raise ValueError("its classes are not the bins")
    except ValueError as error:
        raise UserError(
            f"{name} is not an audit record (at target: {error}): make it again with 'unlearn audit'"
        ) from error


def parse_record(data: bytes, name: str) -> dict[str, Any]:
    """The record in a file that may come from anywhere.

    Raises:
        UserError: the file is not an audit record, or a record of another format version.
    """
    try:
        record = parse_object(data)
        version = record["format_version"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{name} is not an audit record: make it with 'unlearn audit'") from error
    if record.get("format") == POINTS_FORMAT:
        raise UserError(f"{name} is an audit of single points, not of classes: name an audit of classes")
    if isinstance(version, int) and version > VERSION:
        raise UserError(f"{name} has format version {version}, newer than {VERSION}: update this package")
    if isinstance(version, int) and version < VERSION:
        raise UserError(
            f"{name} has format version {version}, older than {VERSION}: run the audit again with 'unlearn audit', or "
            "read it with the version that wrote it"
        )
    check_record(record, name)
    return record


def read_record(path: Path) -> dict[str, Any]:
    """The record in a local file. Raises UserError as `parse_record` does, and if the file cannot be read."""
    try:
        return parse_record(read_regular(path, LARGEST), str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; make it with 'unlearn audit'") from error
