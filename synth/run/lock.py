"""One writer per run. The lock is a file in the run's folder that outlives a crash and relies on no machine's clock.

The holder rewrites the lock every few seconds with a growing count. Whoever finds a lock judges its holder by its
process if that ran on the same machine, and otherwise by whether the lock still changes.

Taking over a dead lock needs a second lock, whose name is derived from the dead one's content (`claim_name`). Of
several drivers that find the same dead lock only one gets that claim, and it replaces the dead lock only if it is still
there. So exactly one driver takes the run over.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import NoReturn

from synth.basics.errors import UserError
from synth.basics.way_on import WayOn
from synth.run.holder import facts_in, holder_words, process_facts, runs_here, this_machine
from synth.shards.store import Folder, Store

LOCK = ".synth.lock"
BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 45.0  # four missed beats
CLAIM_DIGITS = 16
LARGEST_LOCK = 4096  # bytes


class LostLockError(UserError):
    """This process may not write to the run any more: another one has it, or may take it at any time."""


class Lock:
    """Held by this process while `locked` lasts.

    Args:
        way_on: the command that holds the lock, for the errors of others, and its way on, for its own errors.
        name: the lock's file in the store.
        place: what the lock is for, in errors; by default the store.
    """

    def __init__(self, store: Store, way_on: WayOn, name: str = LOCK, place: object = None) -> None:
        self.store, self.way_on, self.name, self.place = store, way_on, name, place or store
        who = {"owner": uuid.uuid4().hex, "command": way_on.command, "host": socket.gethostname()}
        self.facts = {**who, **process_facts(os.getpid())}
        self.beats = 0
        self.work: dict[str, float] = {}  # how far the holder is, for others to read
        self.lost: str | None = None  # why, for a person
        self.released = Event()
        self.keeper: Future[None] | None = None

    def to_bytes(self) -> bytes:
        work = {"work": self.work} if self.work else {}
        return json.dumps({**self.facts, "beats": self.beats, **work}, sort_keys=True).encode()

    def check(self) -> None:
        """Raise LostLockError if another process has taken the run over, or if the lock is not renewed any more.

        Another process takes a run over for example while this machine sleeps.
        """
        if self.lost:
            raise LostLockError(self.lost)
        error = self.keeper.exception() if self.keeper and self.keeper.done() else None
        if error is not None:
            raise LostLockError(
                f"the lock of {self.place} could not be renewed ({type(error).__name__}: {str(error)[:160]}): "
                f"{self.way_on.again}"
            ) from error

    def keep(self, beat: float) -> None:
        """Rewrite the lock every `beat` seconds until it is released, another process has it, or it is gone."""
        while not self.released.wait(beat):
            try:
                seen = read_lock(self.store, self.name)
                if seen is None:
                    self.lost = f"{self.place} or its lock was removed meanwhile: {self.way_on.again}"
                elif facts_in(seen).get("owner") != self.facts["owner"]:
                    self.lost = f"{holder_words(seen)} has taken over {self.place}: let that one finish"
                if self.lost:
                    return
                self.beats += 1
                self.store.write(self.name, self.to_bytes())
            except (UserError, OSError):
                continue  # the store is out of reach, and the run itself will say so

    def release(self) -> None:
        """Remove the lock, unless another process has it. A lock that cannot be removed counts as dead from now on."""
        with suppress(UserError, OSError):
            if facts_in(read_lock(self.store, self.name)).get("owner") == self.facts["owner"]:
                self.store.remove(self.name)


@contextmanager
def locked(
    store: Store,
    way_on: WayOn,
    say: Callable[[str], None],
    *,
    name: str = LOCK,
    place: object = None,
    beat: float = BEAT_SECONDS,
    patience: float = PATIENCE_SECONDS,
) -> Iterator[Lock]:
    """Hold the run's lock, or the lock `name` in its store.

    Args:
        way_on: the command that asks for the lock.
        say: gets lines for a person.
        place: what the lock is for, in errors; by default the store.
        beat: seconds between two renewals of the lock.
        patience: seconds to wait for a renewal by a holder on another machine.

    Raises:
        UserError: another process works on the run.
    """
    lock = Lock(store, way_on, name, place)
    store.create()
    acquire(lock, name, say, patience)
    with ThreadPoolExecutor(1) as threads:
        lock.keeper = threads.submit(lock.keep, beat)
        try:
            yield lock
        finally:
            lock.released.set()
            wait([lock.keeper])  # or its last beat might write the lock again
            lock.release()


@contextmanager
def locked_file(path: Path, way_on: WayOn, say: Callable[[str], None]) -> Iterator[Lock]:
    """Hold the lock of one file that a command writes. Its folder is made.

    Raises:
        UserError: another process writes the file.
    """
    with locked(Folder(path.parent), way_on, say, name=f".{path.name}.lock", place=path) as lock:
        yield lock


def refuse_held(store: Store) -> None:
    """Raise UserError if a process that runs on this machine holds the run's lock. Writes nothing and does not wait."""
    seen = read_lock(store, LOCK)
    if seen is not None and runs_here(facts_in(seen)):
        refuse(seen, store)


def acquire(lock: Lock, name: str, say: Callable[[str], None], patience: float) -> None:
    """Write the lock under this name, where no lock is or only a dead one.

    Raises UserError if the holder may be alive.
    """
    store = lock.store
    while not store.write_new(name, lock.to_bytes()):
        seen = read_lock(store, name)
        if seen is None:
            continue  # it was released meanwhile
        if holder_lives(lock, name, seen, say, patience):
            refuse(read_lock(store, name) or seen, lock.place)
        claim = claim_name(lock.name, seen)
        acquire(lock, claim, say, patience)
        try:
            if read_lock(store, name) == seen:
                store.write(name, lock.to_bytes())
                return
        finally:
            store.remove(claim)


def refuse(seen: bytes, place: object) -> NoReturn:
    """Raise the UserError for a lock whose holder works."""
    raise UserError(f"{holder_words(seen)} is working on {place}: wait for it, end it, or choose another --out")


def claim_name(name: str, dead: bytes) -> str:
    """The name of the lock that allows its holder to replace the dead lock `name` with this content."""
    return f"{name}.{hashlib.sha256(dead).hexdigest()[:CLAIM_DIGITS]}"


def is_lock(name: str) -> bool:
    """Whether a file of a run is its lock, or a claim on a dead lock."""
    return name == LOCK or name.startswith(f"{LOCK}.")


def holder_lives(lock: Lock, name: str, seen: bytes, say: Callable[[str], None], patience: float) -> bool:
    """Whether the holder of a lock may be alive. Takes up to `patience` seconds if it ran on another machine."""
    holder = facts_in(seen)
    if holder.get("machine") == this_machine():
        return runs_here(holder)
    say(f"{holder_words(seen)} has locked {lock.place}: waiting {patience:g} s to see whether it still works")
    until = time.monotonic() + patience
    while time.monotonic() < until:
        time.sleep(min(1.0, patience / 10))
        now = read_lock(lock.store, name)
        if now != seen:
            return now is not None
    return False


def read_lock(store: Store, name: str) -> bytes | None:
    """The content of a lock; None if there is none."""
    try:
        return store.read(name, LARGEST_LOCK)
    except FileNotFoundError:
        return None
