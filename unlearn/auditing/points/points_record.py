"""The form of the record of an audit of points, and the check of one that may come from anywhere."""

from __future__ import annotations

from functools import cache
from typing import Any

from unlearn.auditing.record.details import Schema, by_subject, details
from unlearn.auditing.record.schema import POINTS_FORMAT, check_form, without_details

TEXT: Schema = {"type": "string"}
TEXTS: Schema = {"type": "array", "items": TEXT}


@cache
def points_schema() -> Schema:
    """The schema (draft 2020-12). Verdict, controls, ledger and measurements have the form of an audit of classes."""
    of_classes = without_details()
    shared, definitions = of_classes["properties"], of_classes["$defs"]
    definitions["subject"] = {"enum": ["original", "relabelled", "this model", "retrained", "random"]}
    shared["ledger"]["items"]["properties"]["split"]["enum"].append("points")
    group = {"enum": ["memorised", "typical", "other", "unknown"]}
    point = details(
        file=TEXT, label=TEXT, label_known={"type": "boolean"}, group=group, called=by_subject(TEXTS, "by model")
    )
    model = details(path=TEXT, sha256={"$ref": "#/$defs/sha256"})
    inputs = details(
        points=details(folder=TEXT, sha256=TEXT, images={"type": "integer"}),
        models={"type": "object", "required": ["teacher", "student"], "additionalProperties": model},
        data={"type": ["string", "null"]},
        seed={"type": "integer"},
        settings={"type": "object"},
    )
    form = details(
        format={"const": POINTS_FORMAT},
        format_version={"const": 1},
        points={"type": "array", "minItems": 1, "items": point},
        class_names=TEXTS,
        seed={"type": "integer"},
        inputs=inputs,
        doubts=TEXTS,
        failed_controls=TEXTS,
        pictures=shared["pictures"],
        versions=shared["versions"],
        **{name: shared[name] for name in ("measurements", "not_run", "verdict", "controls", "ledger")},
    )
    form["$defs"] = definitions
    # The controls of the other schema point to its verdict, which this one has at the same place.
    return form


def check_points_record(record: Any, name: str) -> None:
    """Raise UserError if the record does not have the form."""
    check_form(record, points_schema(), f"{name} is not an audit of points")
