"""The form of the record of an audit of points, and the check of one that may come from anywhere."""

from __future__ import annotations

from functools import cache
from typing import Any

from synth.basics.errors import UserError
from synth.basics.foreign_json import parse_object
from unlearn.auditing.record.details import Schema, by_subject, details
from unlearn.auditing.record.schema import POINTS_FORMAT, check_form, without_details

VERSION = 2  # 1 had neither the models' cards nor the student's run

TEXT: Schema = {"type": "string"}
TEXTS: Schema = {"type": "array", "items": TEXT}
OF_BOTH = (  # the parts that have the form of an audit of classes
    "class_names",
    "seed",
    "device",
    "settings",
    "models",
    "origin",
    "measurements",
    "not_run",
    "verdict",
    "controls",
    "ledger",
    "pictures",
    "versions",
)


@cache
def points_schema() -> Schema:
    """The schema (draft 2020-12)."""
    of_classes = without_details()
    shared, definitions = of_classes["properties"], of_classes["$defs"]
    definitions["subject"] = {"enum": ["original", "relabelled", "this model", "retrained", "random"]}
    shared["ledger"]["items"]["properties"]["split"]["enum"].append("points")
    group = {"enum": ["memorised", "typical", "other", "unknown"]}
    point = details(
        file=TEXT, label=TEXT, label_known={"type": "boolean"}, group=group, called=by_subject(TEXTS, "by model")
    )
    asked = shared["request"]["properties"]
    request = details(points=TEXT, **{name: asked[name] for name in ("student", "teacher", "references", "data")})
    shared["origin"]["properties"]["shards"] = {"type": "null"}  # these audits look at none
    form = details(
        format={"const": POINTS_FORMAT},
        format_version={"const": VERSION},
        points={"type": "array", "minItems": 1, "items": point},
        points_sha256={"$ref": "#/$defs/sha256"},
        image_shape={
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 4096},
            "minItems": 3,
            "maxItems": 3,
        },
        request=request,
        doubts=TEXTS,
        failed_controls=TEXTS,
        **{name: shared[name] for name in OF_BOTH},
    )
    form["$defs"] = definitions
    # The controls of the other schema point to its verdict, which this one has at the same place.
    return form


def check_points_record(record: Any, name: str) -> None:
    """Raise UserError if the record does not have the form."""
    check_form(record, points_schema(), f"{name} is not an audit of points")


def parse_points_record(data: bytes, name: str) -> dict[str, Any] | None:
    """The record in a file that may come from anywhere; None for a file that holds no audit of points.

    Raises UserError if the record is damaged, or of another format version.
    """
    try:
        record = parse_object(data)
    except ValueError:
        return None  # the reader of other audits says why
    if record.get("format") != POINTS_FORMAT:
        return None
    version = record.get("format_version")
    if version != VERSION:
        cure = "run the audit again with 'unlearn audit'" if version == 1 else "read it with the version that wrote it"
        raise UserError(f"{name} is an audit of points of format version {str(version)[:20]}, not {VERSION}: {cure}")
    check_points_record(record, name)
    return record
