"""The models and the real images of an audit, as its record names them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import student_file
from unlearn.auditing.record.record import MODEL, ORIGINAL, PUBLIC, RETRAINED
from unlearn.data import DataSource


def models_json(
    student: Path,
    teacher: Path,
    references: Sequence[Path],
    public: Path | None,
    subjects: Mapping[str, Sequence[Classifier]],
) -> dict[str, Any]:
    """Path, hash and card of the teacher, the student, the references, and the public weights if there are any."""
    pairs = zip(references, subjects.get(RETRAINED, ()), strict=True)
    return {
        **({"public": model_json(public, subjects[PUBLIC][0])} if public else {}),
        "teacher": model_json(teacher, subjects[ORIGINAL][0]),
        "student": model_json(student_file(student), subjects[MODEL][0]),
        "references": [model_json(path, model) for path, model in pairs],
    }


def model_json(path: Path, model: Classifier) -> dict[str, Any]:
    return {
        "path": str(path),
        "sha256": model.digest,
        "architecture": model.card.architecture,
        "width": model.card.width,
        "training": json.loads(json.dumps(dict(model.card.training))),
    }


def data_json(data: DataSource | None, card: ModelCard) -> dict[str, Any] | None:
    """What a replay reads the images from; None without --data."""
    if data is None:
        return None
    return {"name": data.name, "root": data.root and str(data.root), "image_size": data.side(card)}
