"""Numbered inputs, read in child processes. A child that hangs or dies is replaced, and its input is a fault."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzzing.readers import Reader
from tests.fuzzing.watch import SLOW, Seen, Watch

PATIENCE = 120.0  # seconds without an answer after which a child hangs
TRIES = 3  # readings after which an input is slow: a busy machine delays one, and hardly three
KEPT = 3  # inputs of one fault that are kept


@dataclass
class Tally:
    """What happened to a reader's inputs."""

    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    memory: int = 0
    faults: dict[str, list[int]] = field(default_factory=dict)  # the numbers of the inputs by fault

    def add(self, number: int, seen: Seen) -> None:
        self.inputs += 1
        self.refused += seen.refused
        self.seconds += seen.seconds
        self.slowest = max(self.slowest, seen.seconds)
        self.memory = max(self.memory, seen.memory)
        if seen.fault:
            self.faults.setdefault(seen.fault, []).append(number)

    def merge(self, other: Tally) -> None:
        self.inputs, self.refused = self.inputs + other.inputs, self.refused + other.refused
        self.seconds, self.slowest = self.seconds + other.seconds, max(self.slowest, other.slowest)
        self.memory = max(self.memory, other.memory)
        for fault, numbers in other.faults.items():
            self.faults.setdefault(fault, []).extend(numbers)


class Campaign:
    """All inputs `numbers` of a random seed over the readers, each as often as its weight says."""

    def __init__(self, readers: Sequence[Reader], seed: int, scratch: Path, kept: Path | None = None) -> None:
        self.readers, self.seed, self.scratch, self.kept = readers, seed, scratch, kept
        self.until = math.inf
        self.weights = [reader.weight for reader in readers]
        self.tallies = {reader.name: Tally() for reader in readers}

    def input(self, number: int) -> tuple[Reader, str, bytes]:
        """The reader of an input, the name of the changed file, and its bytes."""
        rng = random.Random(f"{self.seed}:{number}")
        reader = rng.choices(self.readers, self.weights)[0]
        name, data = rng.choice((*reader.valid, *reader.odd))
        return reader, name, rng.choice(reader.mutations)(data, rng)

    def run(
        self, numbers: Sequence[int], say: Callable[[str], None] = lambda line: None, seconds: float = math.inf
    ) -> None:
        """Read these inputs in order in one child at a time, as many as the seconds allow."""
        left, self.until = list(numbers), time.monotonic() + seconds
        while left and time.monotonic() < self.until:
            ours, theirs = multiprocessing.get_context("fork").Pipe()
            child = multiprocessing.get_context("fork").Process(
                target=self.work, args=(ours, theirs, left), daemon=True
            )
            child.start()
            theirs.close()
            left = left[self.listen(ours, left, say) :]
            child.kill()
            child.join()

    def listen(self, child: Connection, numbers: Sequence[int], say: Callable[[str], None]) -> int:
        """Note what the child says about each input, and return the number of those that are done."""
        if (ready := child.recv()) != "ready":
            raise RuntimeError(ready)
        for done, number in enumerate(numbers):
            started = time.monotonic()
            if started > self.until:
                return done
            try:
                answer = child.recv() if child.poll(PATIENCE) else "waits for ever"
            except EOFError:
                answer = "the process died"
            if isinstance(answer, str) and "\n" in answer:
                raise RuntimeError(answer)
            if isinstance(answer, str):
                seconds = time.monotonic() - started
                self.note(number, self.input(number)[0].name, Seen(False, answer, "", seconds, 0), say)
                return done + 1
            self.note(number, *answer, say)
        return len(numbers)

    def note(self, number: int, name: str, seen: Seen, say: Callable[[str], None]) -> None:
        tally = self.tallies[name]
        tally.add(number, seen)
        if seen.fault and len(tally.faults[seen.fault]) <= KEPT:
            say(f"input {number}, {name}: {seen.fault}")
            self.keep(number, seen)

    def keep(self, number: int, seen: Seen) -> None:
        """Write the input and what it did into the folder of kept inputs."""
        if self.kept is None:
            return
        reader, name, data = self.input(number)
        place = self.kept / f"{number}-{reader.name.replace(' ', '-')}"
        place.mkdir(parents=True, exist_ok=True)
        (place / Path(name).name).write_bytes(data)
        (place / "fault.txt").write_text(f"{seen.fault}\n{seen.detail}\n")

    def work(self, parents: Connection, out: Connection, numbers: Sequence[int]) -> None:
        """The child: read every input, and send what was seen; a text is an error of the test itself."""
        parents.close()  # so that sending fails once the parent has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the readers print
        try:
            watch, usual = self.prepare()
            out.send("ready")
            for number in numbers:
                reader, name, data = self.input(number)
                place = self.scratch / reader.name
                for _ in range(TRIES):
                    write(place / name, data)
                    seen = watch.see(partial(reader.read, place), usual[reader.name])
                    tidy(place, reader)
                    if seen.fault != SLOW:
                        break
                out.send((reader.name, seen))
        except Exception as error:
            out.send("".join(traceback.format_exception(error))[-2000:])

    def prepare(self) -> tuple[Watch, dict[str, float]]:
        """A folder for each reader. Each reads its valid files once: what it loads and keeps is no cost of an input.

        Returns the watch, and the seconds that a reader's valid file takes.
        """
        shutil.rmtree(self.scratch, ignore_errors=True)
        watch, usual = Watch(self.scratch), {}
        for reader in self.readers:
            place = self.scratch / reader.name
            for name, data in reader.beside.items():
                write(place / name, data)
            for name, data in reader.valid:
                for _ in range(2):  # the first reading loads what the second needs not load again
                    write(place / name, data)
                    started = time.process_time()
                    reader.read(place)
                    usual[reader.name] = time.process_time() - started
                    tidy(place, reader)
        watch.limit_memory()
        return watch, usual

    @property
    def faults(self) -> list[str]:
        """One line for each kind of fault."""
        return [
            f"{name}: {fault} ({len(numbers)} inputs, such as {', '.join(map(str, numbers[:3]))})"
            for name, tally in self.tallies.items()
            for fault, numbers in tally.faults.items()
        ]

    def merge(self, other: Campaign) -> None:
        """Add what another part of the same campaign found."""
        for name, theirs in other.tallies.items():
            self.tallies[name].merge(theirs)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def tidy(place: Path, reader: Reader) -> None:
    """Remove everything but the files that stay as they are, and write these again if a reader changed them."""
    for path in sorted(place.rglob("*"), reverse=True):
        name = str(path.relative_to(place))
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif name not in reader.beside:
            path.unlink()
    for name, data in reader.beside.items():
        path = place / name
        if not path.is_file() or path.stat().st_size != len(data):
            write(path, data)
