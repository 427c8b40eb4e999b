"""One driver per run. The lock is a file beside the shards that outlives a crash and relies on no machine's clock.

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
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from synth.basics.errors import UserError
from synth.basics.foreign_json import parse_object
from synth.shards.store import Store

LOCK = ".synth.lock"
BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 45.0  # four missed beats
CLAIM_DIGITS = 16
LARGEST_LOCK = 4096  # bytes


class LostLockError(UserError):
    """This driver may not write to the run any more: another one has it, or may take it at any time."""


class Lock:
    """Held by this process while `locked` lasts."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.facts = {"owner": uuid.uuid4().hex, "host": socket.gethostname(), **process_facts(os.getpid())}
        self.beats = 0
        self.lost = False
        self.released = Event()
        self.keeper: Future[None] | None = None

    def to_bytes(self) -> bytes:
        return json.dumps({**self.facts, "beats": self.beats}, sort_keys=True).encode()

    def check(self) -> None:
        """Raise LostLockError if another driver has taken the run over, or if the lock is not renewed any more.

        Another driver takes a run over for example while this machine sleeps.
        """
        if self.lost:
            raise LostLockError(f"another 'synth generate' has taken over {self.store}: let that one finish the run")
        error = self.keeper.exception() if self.keeper and self.keeper.done() else None
        if error is not None:
            raise LostLockError(
                f"the lock of {self.store} could not be renewed ({type(error).__name__}: {str(error)[:160]}): go on "
                "with the same command and --resume"
            ) from error

    def keep(self, beat: float) -> None:
        """Rewrite the lock every `beat` seconds until it is released or another driver has it."""
        while not self.released.wait(beat):
            try:
                self.lost = facts_in(read_lock(self.store, LOCK)).get("owner") != self.facts["owner"]
                if self.lost:
                    return
                self.beats += 1
                self.store.write(LOCK, self.to_bytes())
            except (UserError, OSError):
                continue  # the store is out of reach, and the run itself will say so

    def release(self) -> None:
        """Remove the lock, unless another driver has it."""
        if facts_in(read_lock(self.store, LOCK)).get("owner") == self.facts["owner"]:
            self.store.remove(LOCK)


@contextmanager
def locked(
    store: Store, say: Callable[[str], None], beat: float = BEAT_SECONDS, patience: float = PATIENCE_SECONDS
) -> Iterator[Lock]:
    """Hold the run's lock.

    Args:
        say: gets lines for a person.
        beat: seconds between two renewals of the lock.
        patience: seconds to wait for a renewal by a holder on another machine.

    Raises:
        UserError: another driver works on the run.
    """
    lock = Lock(store)
    store.create()
    acquire(lock, LOCK, say, patience)
    with ThreadPoolExecutor(1) as threads:
        lock.keeper = threads.submit(lock.keep, beat)
        try:
            yield lock
        finally:
            lock.released.set()
            wait([lock.keeper])  # or its last beat might write the lock again
            lock.release()


def acquire(lock: Lock, name: str, say: Callable[[str], None], patience: float) -> None:
    """Write the lock under this name, where no lock is or only a dead one.

    Raises UserError if the holder may be alive.
    """
    store = lock.store
    while not store.write_new(name, lock.to_bytes()):
        seen = read_lock(store, name)
        if seen is None:
            continue  # it was released meanwhile
        if holder_lives(store, name, seen, say, patience):
            holder = facts_in(seen)
            raise UserError(
                f"another 'synth generate' (process {holder.get('pid')} on {holder.get('host')}) is making {store}: "
                "wait for it, end it, or choose another --out"
            )
        claim = claim_name(seen)
        acquire(lock, claim, say, patience)
        try:
            if read_lock(store, name) == seen:
                store.write(name, lock.to_bytes())
                return
        finally:
            store.remove(claim)


def claim_name(dead: bytes) -> str:
    """The name of the lock that allows its holder to replace a dead lock with this content."""
    return f"{LOCK}.{hashlib.sha256(dead).hexdigest()[:CLAIM_DIGITS]}"


def is_lock(name: str) -> bool:
    """Whether a file of a run is its lock, or a claim on a dead lock."""
    return name == LOCK or name.startswith(f"{LOCK}.")


def holder_lives(store: Store, name: str, seen: bytes, say: Callable[[str], None], patience: float) -> bool:
    """Whether the holder of a lock may be alive. Takes up to `patience` seconds if it ran on another machine."""
    holder = facts_in(seen)
    here = process_facts(holder.get("pid", 0))
    if holder.get("machine") == here["machine"]:
        return here["begun"] is not None and holder.get("begun") == here["begun"]
    who = f"process {holder['pid']} on {holder.get('host')}" if "pid" in holder else "an unknown process"
    say(f"{store} is locked by {who}: waiting {patience:g} s to see whether it still works")
    until = time.monotonic() + patience
    while time.monotonic() < until:
        time.sleep(min(1.0, patience / 10))
        now = read_lock(store, name)
        if now != seen:
            return now is not None
    return False


def read_lock(store: Store, name: str) -> bytes | None:
    """The content of a lock; None if there is none."""
    try:
        return store.read(name, LARGEST_LOCK)
    except FileNotFoundError:
        return None


def facts_in(content: bytes | None) -> dict[str, Any]:
    """What a lock says about its holder; empty if there is no lock, or its content is not one of ours."""
    try:
        return parse_object(content or b"")
    except ValueError:
        return {}


def process_facts(pid: Any) -> dict[str, Any]:
    """The machine (its boot and its container), and when the process began; None if there is no such process."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        machine = socket.gethostname()
    return {"machine": machine, "pid": pid, "begun": process_begun(pid)}


def process_begun(pid: Any) -> str | None:
    """When a process began, in ticks since the machine's start; None if there is no such process.

    On a system without /proc it is "unknown" for every process that exists.
    """
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # a zombie counts as dead
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "unknown"
