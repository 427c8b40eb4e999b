"""The folder of one audit: audit.json, timing.json, pictures, and inputs.json, which says what every value depends on.

While an audit works, its folder also has a lock and checkpoint.pt with the results of the experiments so far. So an
interrupted audit can go on, and it takes results over only if they belong to the same inputs. Of a complete audit
results.pt keeps them: a later audit of one more student beside it need not run the other models again.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synth.basics.errors import UsageError, UserError
from synth.basics.foreign_json import parse_object
from synth.basics.way_on import WayOn
from synth.checkpoint.file import LARGEST_CHECKPOINT
from synth.run.lock import Lock
from synth.shards.store import Folder
from unlearn.auditing.bench import NotKeptError, Results
from unlearn.run.folder import CHECKPOINT, LARGEST_SETTINGS, json_bytes, names_without_lock, refuse_taken

AUDIT, TIMING, PICTURES, INPUTS = "audit.json", "timing.json", "pictures", "inputs.json"
RESULTS = "results.pt"
PICTURE = re.compile(r"(synthesised|resurrection-[a-z-]+)\.png")
PLAIN = (bool, int, float, str, type(None))
LARGEST_SHARE = 0.02  # of an audit's time that goes into writing unfinished experiments


class AuditFolder:
    """To make this object changes no file: `check` reads, and from `begin` on the caller holds the folder's lock.

    `way_on` is what a person can do after the audit broke off, for its errors.
    """

    def __init__(self, path: Path, way_on: WayOn) -> None:
        self.path, self.way_on = path, way_on
        self.store = Folder(path, way_on.again)
        self.lock: Lock | None = None
        self.results: dict[str, Results] = {}  # by experiment
        self.due = 0.0  # when unfinished experiments are written again

    def names(self) -> set[str]:
        """The names of the files, without the folder's lock."""
        return names_without_lock(self.store)

    @property
    def complete(self) -> bool:
        """Whether the audit has ended. An audit that replaces another one keeps its record until then."""
        names = self.names()
        return AUDIT in names and CHECKPOINT not in names

    def check(self, *, overwrite: bool = False, resume: bool = False) -> None:
        """Raise UsageError if the folder holds files that the audit may neither replace nor go on with."""
        there = self.names()
        ours = there <= {AUDIT, TIMING, PICTURES, INPUTS, RESULTS, CHECKPOINT}
        refuse_taken(self.path, there, ours, self.way_on, overwrite=overwrite, resume=resume)

    def begin(self, lock: Lock, inputs: Mapping[str, Any], *, overwrite: bool = False, resume: bool = False) -> None:
        """Take the folder for an audit of these inputs, and read the results of the audit that this one resumes, also
        of a complete one.

        Raises:
            UsageError: the folder holds other files, or the audit in it has other inputs.
            UserError: the folder cannot be written, or its results are damaged.
        """
        self.check(overwrite=overwrite, resume=resume)
        self.lock = lock
        self.store.create()
        self.store.remove_temporaries()
        if resume and INPUTS in self.names():
            self.check_inputs(inputs)
            kept = next((name for name in (CHECKPOINT, RESULTS) if name in self.names()), None)
            if kept:
                self.results = self.read_results(kept)
            return
        if resume and self.complete:
            raise UsageError(f"{self.path} was made by an older version, which kept no {INPUTS}: {self.way_on.anew}")
        self.write_results()
        self.store.remove(RESULTS)
        self.store.write(INPUTS, json_bytes(inputs))

    def check_inputs(self, inputs: Mapping[str, Any]) -> None:
        """Raise UsageError if the audit in the folder has other inputs."""
        try:
            before, now = parse_object(self.store.read(INPUTS, LARGEST_SETTINGS)), json.loads(json.dumps(inputs))
        except ValueError as error:
            raise UserError(f"{self.path / INPUTS} is damaged: {self.way_on.anew}") from error
        for name in {**now, **before}:
            if before.get(name) != now.get(name):
                raise UsageError(
                    f"{self.path} was begun with {name} {str(before.get(name))[:40]}, not {str(now.get(name))[:40]}: "
                    f"resume it with its own options, {self.way_on.anew}, or choose another --out"
                )

    def read_results(self, name: str) -> dict[str, Results]:
        try:
            saved = io.BytesIO(self.store.read(name, LARGEST_CHECKPOINT))
            found = torch.load(saved, map_location="cpu", weights_only=True)
            return {str(name): {**results} for name, results in found.items()}
        except Exception as error:  # damaged bytes can make the unpickler raise any exception
            raise UserError(f"{self.path / name} is damaged: {self.way_on.anew}") from error

    def write_results(self, name: str = CHECKPOINT) -> None:
        buffer = io.BytesIO()
        torch.save(self.results, buffer)
        self.store.write(name, buffer.getvalue())

    def keep(self, name: str, results: Results, finished: bool) -> None:
        """Keep an experiment's results so far. Unfinished ones are written now and then.

        Results that are more than numbers, text and tensors are not kept: their measure runs again.

        Raises:
            NotKeptError: the results cannot be written.
        """
        if not all(map(is_plain, results.values())):
            return
        self.results[name] = results
        started = time.monotonic()
        if not finished and started < self.due:
            return
        try:
            self.check_lock()
            self.write_results()
        except UserError as error:
            raise NotKeptError(str(error)) from error
        self.due = time.monotonic() + (time.monotonic() - started) / LARGEST_SHARE

    def check_lock(self) -> None:
        """Raise LostLockError if another process has taken the folder over."""
        assert self.lock is not None, "the audit has begun"
        self.lock.check()

    def write(self, record: Mapping[str, Any], pictures: Mapping[str, bytes], timing: Mapping[str, Any]) -> None:
        """Replace an earlier audit in the folder. The record goes first and comes last: its pictures are always
        complete.
        """
        self.check_lock()
        self.store.remove(AUDIT)
        beside = Folder(self.path / PICTURES, self.way_on.again)
        for name in beside.names():
            if PICTURE.fullmatch(name) and name not in pictures:
                beside.remove(name)
        if pictures:
            beside.create()
            beside.remove_temporaries()
        for name, data in pictures.items():
            beside.write(name, data)
        self.store.write(TIMING, json_bytes(timing))
        self.write_results(RESULTS)
        self.store.write(AUDIT, json_bytes(record))
        self.store.remove(CHECKPOINT)


def is_plain(value: Any) -> bool:
    """Whether a value can be read back from a file without running code."""
    if type(value) in (tuple, list):
        return all(map(is_plain, value))
    return type(value) in (*PLAIN, Tensor)
