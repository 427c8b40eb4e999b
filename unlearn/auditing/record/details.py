"""JSON schemas that a measure's module builds its DETAILS from."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

COUNT: Schema = {"type": "integer", "minimum": 1}
INDEX: Schema = {"$ref": "#/$defs/index"}
IMAGES: Schema = {**COUNT, "description": "the values are shares of this many images"}


def details(**required: Schema) -> Schema:
    """The schema of details that have exactly these fields, all of them required."""
    return {
        "type": "object",
        "required": list(required),
        "additionalProperties": False,
        "properties": required,
    }


def by_subject(schema: Schema, description: str) -> Schema:
    """The schema of an object with one value per subject."""
    return {
        "type": "object",
        "description": description,
        "propertyNames": {"$ref": "#/$defs/subject"},
        "additionalProperties": schema,
    }


NOTHING = details()
SHARES = details(images=IMAGES)
