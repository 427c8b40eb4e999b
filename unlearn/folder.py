"""An unlearning run's folder: settings.json, metrics.jsonl, student.safetensors and provenance.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synth.errors import UsageError
from synth.store import Folder
from synth.teacher import Classifier, checkpoint_bytes

SETTINGS, METRICS, STUDENT, PROVENANCE = (
    "settings.json",
    "metrics.jsonl",
    "student.safetensors",
    "provenance.json",
)


class RunFolder:
    """A fresh folder for one run. A folder with anything in it is only taken when told to overwrite a run's files."""

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        self.path = path
        self.store = Folder(path)
        there = self.store.names()
        ours = {SETTINGS, METRICS, STUDENT, PROVENANCE}
        if there and not (overwrite and there <= ours):
            cure = "choose another --out" + (", or replace it with --overwrite" if there <= ours else "")
            raise UsageError(f"{path} already holds files ({min(there)}, ...): {cure}")
        self.store.create()
        for name in sorted(there):
            self.store.remove(name)
        self.store.write(METRICS, b"")

    def write_json(self, name: str, content: Any) -> None:
        self.store.write(name, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append one line to the metrics; a reader may follow it."""
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def save_student(self, student: Classifier) -> Path:
        self.store.write(STUDENT, checkpoint_bytes(student))
        return self.path / STUDENT
