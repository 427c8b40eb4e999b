"""An unlearning run's folder: settings.json, metrics.jsonl, student.safetensors and provenance.json.

A run that has not ended also has a checkpoint.pt, from which it can be resumed, and a run at work has a lock. Loggers
(`--log-to`) may add a metrics.csv, and logs.json, which names the logs that services keep of the run. A run that
forgets single points lists them in points.json. If the student of
every check is kept, student-000050.safetensors is the one of step 50.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from synth.basics.disk import append_to_file, sha256_of
from synth.basics.errors import UsageError, UserError
from synth.basics.foreign_json import parse_object
from synth.basics.regular_files import read_regular
from synth.basics.versions import package_versions
from synth.basics.way_on import WayOn
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import LARGEST_CHECKPOINT, SETTINGS, STUDENT, checkpoint_bytes
from synth.run.lock import is_lock
from synth.shards.store import Folder

METRICS, PROVENANCE, CHECKPOINT = "metrics.jsonl", "provenance.json", "checkpoint.pt"
LARGEST_SETTINGS = 2**24  # bytes, of settings.json and provenance.json
LARGEST_METRICS = 2**28  # bytes
TABLE, LOGS, POINTS = "metrics.csv", "logs.json", "points.json"
NAMES = {SETTINGS, METRICS, STUDENT, PROVENANCE, CHECKPOINT, TABLE, LOGS, POINTS}
PLACES = ("teacher", "shards", "arch", "start_from", "forget_points")  # settings that say where the inputs were
KEPT = re.compile(r"student-(\d{6,})\.safetensors")


class RunFolder:
    """The folder of one run. To make this object changes no file: `check` reads, `begin` writes.

    `way_on` is what a person can do after the run broke off, for its errors.
    """

    def __init__(self, path: Path, way_on: WayOn) -> None:
        self.path, self.way_on = path, way_on
        self.store = Folder(path, way_on.again)

    @property
    def complete(self) -> bool:
        """Whether the run has ended: its provenance is written last."""
        return PROVENANCE in self.names()

    def names(self) -> set[str]:
        """The names of the files, without the folder's lock."""
        return names_without_lock(self.store)

    def check(self, claim: Mapping[str, Any], *, overwrite: bool = False, resume: bool = False) -> None:
        """Raise UsageError if a run with these settings may not have the folder.

        A folder with files is taken only to overwrite or to resume a run, and only if all its files are a run's. A run
        is resumed only with its own settings.

        Args:
            claim: the settings of the run, as settings.json will hold them.
        """
        there = self.names()
        ours = all(name in NAMES or KEPT.fullmatch(name) for name in there)
        refuse_taken(self.path, there, ours, self.way_on, overwrite=overwrite, resume=resume)
        if resume and SETTINGS in there:
            self.check_settings(claim)

    def check_settings(self, claim: Mapping[str, Any]) -> None:
        """Raise UsageError if the run in the folder has other settings. Its inputs may have moved: their hashes
        count.
        """
        before, now = self.settings(), json.loads(json.dumps(claim))
        names = {*before, *now}.difference(PLACES)
        differing = sorted(name for name in names if before.get(name) != now.get(name))
        if differing:
            name = differing[0]
            raise UsageError(
                f"{self.path} was begun with {name} {before.get(name)}, not {now.get(name)}: "
                "resume it with its own options, or choose another --out"
            )

    def begin(self, claim: Mapping[str, Any], *, overwrite: bool = False, resume: bool = False) -> None:
        """Take the folder for a run: remove what another run left, unless this one resumes it, and write the settings.

        The caller holds the folder's lock.
        """
        self.check(claim, overwrite=overwrite, resume=resume)
        self.store.create()
        self.store.remove_temporaries()
        if not resume:
            for name in sorted(self.names()):
                self.store.remove(name)
        if METRICS not in self.store.names():
            self.store.write(METRICS, b"")
        self.write_json(SETTINGS, claim)

    def settings(self) -> dict[str, Any]:
        try:
            return parse_object(self.store.read(SETTINGS, LARGEST_SETTINGS))
        except ValueError as error:
            raise UserError(f"{self.path / SETTINGS} is damaged: {self.way_on.anew}") from error

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        self.store.write(CHECKPOINT, buffer.getvalue())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, or None. Metrics of later steps are removed, since the run will write them again."""
        state, step = None, 0
        if CHECKPOINT in self.store.names():
            content = io.BytesIO(self.store.read(CHECKPOINT, LARGEST_CHECKPOINT))
            try:
                state = torch.load(content, map_location="cpu", weights_only=True)
                step = int(state["step"])
            except Exception as error:  # damaged bytes can make the unpickler raise any exception
                raise UserError(f"{self.path / CHECKPOINT} is damaged: {self.way_on.anew}") from error
        lines = self.store.read(METRICS, LARGEST_METRICS).decode(errors="replace").splitlines(keepends=True)
        self.store.write(METRICS, "".join(line for line in lines if logged_step(line) <= step).encode())
        return state

    def save_provenance(self, facts: Mapping[str, Any]) -> None:
        """Write what the student was made from, and its hash. This file is written last: with it the run is
        complete.
        """
        digest = sha256_of(self.store.read(STUDENT, LARGEST_CHECKPOINT))
        ours = {"student_sha256": digest, "versions": package_versions()}
        self.write_json(PROVENANCE, {**facts, **ours})

    def remove_checkpoint(self) -> None:
        self.store.remove(CHECKPOINT)

    def write_json(self, name: str, content: Any) -> None:
        self.store.write(name, json_bytes(content))

    def log(self, step: int, values: dict[str, float]) -> None:
        """Append one line to the metrics. Others may read the file meanwhile."""
        line = json.dumps({"step": step, **values}) + "\n"
        append_to_file(self.path / METRICS, line.encode(), self.way_on.again)

    def save_student(self, student: Classifier) -> Path:
        self.store.write(STUDENT, checkpoint_bytes(student))
        return self.path / STUDENT

    def keep_student(self, step: int, student: Classifier) -> None:
        self.store.write(f"student-{step:06d}.safetensors", checkpoint_bytes(student))


def names_without_lock(store: Folder) -> set[str]:
    """The names of the files of a folder, without its lock."""
    return {name for name in store.names() if not is_lock(name)}


def refuse_taken(path: Path, there: set[str], ours: bool, way_on: WayOn, *, overwrite: bool, resume: bool) -> None:
    """Raise UsageError if a folder holds files that a command may neither replace nor go on with.

    Args:
        there: the names of the files.
        ours: whether all of them are files that the command writes.
    """
    if overwrite and resume:
        raise UsageError("--resume and --overwrite exclude each other: choose one")
    if there and not ((overwrite or resume) and ours):
        cure = way_on.past_files if ours else "choose another --out"
        raise UsageError(f"{path} already holds files ({min(there)}, ...): {cure}")


def json_bytes(content: Any) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def read_provenance(path: Path) -> dict[str, Any]:
    """The provenance of the run in a folder. Raises UserError if it is damaged."""
    file = path / PROVENANCE
    try:
        return parse_object(read_regular(file, LARGEST_SETTINGS))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)[:80]
        raise UserError(f"{file} is damaged ({why}): start the run again with --overwrite") from error


def note_judgement(path: Path, facts: Mapping[str, Any]) -> None:
    """Add to a run's provenance which real images its student was judged on: a student may be chosen by the result."""
    provenance = read_provenance(path)
    Folder(path).write(PROVENANCE, json_bytes({**provenance, "judged_on": facts}))


def logged_step(line: str) -> float:
    """The step of a line of metrics; infinite for a line that is incomplete because the run was killed."""
    try:
        return float(parse_object(line, constant=lambda _: None)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
