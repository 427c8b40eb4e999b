"""An unlearning run's folder: settings.json, metrics.jsonl, student.safetensors and provenance.json.

While the run goes on there is a checkpoint.pt as well, which the run can be resumed from. Where students of every check
are kept, student-000050.safetensors is that of step 50.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from synth.basics.errors import UsageError, UserError
from synth.basics.versions import package_versions
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import checkpoint_bytes
from synth.shards.store import Folder

SETTINGS, METRICS, STUDENT, PROVENANCE, CHECKPOINT = (
    "settings.json",
    "metrics.jsonl",
    "student.safetensors",
    "provenance.json",
    "checkpoint.pt",
)
KEPT = re.compile(r"student-(\d{6,})\.safetensors")


class RunFolder:
    """A folder for one run. A folder with anything in it is only taken to overwrite or to resume a run's own files."""

    def __init__(self, path: Path, overwrite: bool = False, resume: bool = False) -> None:
        if overwrite and resume:
            raise UsageError("--resume and --overwrite exclude each other: choose one")
        self.path = path
        self.store = Folder(path)
        there = self.store.names()
        names = {SETTINGS, METRICS, STUDENT, PROVENANCE, CHECKPOINT}
        ours = all(name in names or KEPT.fullmatch(name) for name in there)
        if there and not ((overwrite or resume) and ours):
            cure = "choose another --out" + (", or replace it with --overwrite" if ours else "")
            raise UsageError(f"{path} already holds files ({min(there)}, ...): {cure}")
        self.store.create()
        self.store.remove_temporaries()
        if not resume:
            for name in sorted(there):
                self.store.remove(name)
        if METRICS not in self.store.names():
            self.store.write(METRICS, b"")

    @property
    def complete(self) -> bool:
        """The provenance is written last."""
        return PROVENANCE in self.store.names()

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Write the settings, or find that the run to resume had the same."""
        settings = json.loads(json.dumps(settings))
        if SETTINGS in self.store.names():
            before = self.settings()
            differing = sorted(k for k in {*before, *settings} if before.get(k) != settings.get(k))
            if differing:
                name = differing[0]
                raise UsageError(
                    f"{self.path} was begun with {name} {before.get(name)}, not {settings.get(name)}: "
                    "resume it with its own options, or choose another --out"
                )
        self.write_json(SETTINGS, settings)

    def settings(self) -> dict[str, Any]:
        try:
            return {**json.loads(self.store.read(SETTINGS))}
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.path / SETTINGS} is damaged: start the run again with --overwrite") from error

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        self.store.write(CHECKPOINT, buffer.getvalue())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, None where there is none; metrics of later steps are dropped."""
        state, step = None, 0
        if CHECKPOINT in self.store.names():
            content = io.BytesIO(self.store.read(CHECKPOINT))
            try:
                state = torch.load(content, map_location="cpu", weights_only=True)
                step = int(state["step"])
            except Exception as error:  # damaged bytes make the unpickler raise anything
                raise UserError(f"{self.path / CHECKPOINT} is damaged: start the run again with --overwrite") from error
        lines = self.store.read(METRICS).decode().splitlines(keepends=True)
        self.store.write(METRICS, "".join(line for line in lines if logged_step(line) <= step).encode())
        return state

    def save_provenance(self, facts: Mapping[str, Any]) -> None:
        """What the student was made from, with its own digest; written last, so that its presence ends the run."""
        digest = hashlib.sha256(self.store.read(STUDENT)).hexdigest()
        ours = {"student_sha256": digest, "real_images_read": 0, "versions": package_versions()}
        self.write_json(PROVENANCE, {**facts, **ours})

    def remove_checkpoint(self) -> None:
        self.store.remove(CHECKPOINT)

    def write_json(self, name: str, content: Any) -> None:
        self.store.write(name, json_bytes(content))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append one line to the metrics; a reader may follow it."""
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def save_student(self, student: Classifier) -> Path:
        self.store.write(STUDENT, checkpoint_bytes(student))
        return self.path / STUDENT

    def keep_student(self, step: int, student: Classifier) -> None:
        self.store.write(f"student-{step:06d}.safetensors", checkpoint_bytes(student))


def json_bytes(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def note_judgement(path: Path, facts: Mapping[str, Any]) -> None:
    """Write into a run's provenance which real images its student was judged on, since others may be chosen by that."""
    provenance = json.loads((path / PROVENANCE).read_text())
    Folder(path).write(PROVENANCE, json_bytes({**provenance, "judged_on": facts}))


def kept_students(path: Path) -> dict[int, Path]:
    """The students of a run's checks, by step."""
    found = ((KEPT.fullmatch(name), path / name) for name in sorted(Folder(path).names()))
    return {int(match[1]): place for match, place in found if match}


def read_metrics(path: Path) -> list[dict[str, float]]:
    """A run's metrics, a line each."""
    return [json.loads(line) for line in (path / METRICS).read_text().splitlines()]


def logged_step(line: str) -> float:
    """The step of a line of metrics; infinite for a line that a kill cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
