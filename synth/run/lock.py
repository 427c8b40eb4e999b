"""One driver a run. The lock is an object beside the shards that outlives a crash, and takes no clock on trust.

Its holder rewrites it with a growing count. Whoever finds it judges the holder by its process, on the same machine, or by
whether the count still grows, timed with a clock of their own.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synth.basics.errors import UserError
from synth.shards.store import Store

LOCK = ".synth.lock"
BEAT_SECONDS = 10.0
PATIENCE_SECONDS = 45.0  # four missed beats


class TakenOverError(UserError):
    """Another driver has the run now: nothing of it is to be touched any more."""


class Lock:
    """Held by this process while `locked` lasts."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.facts = {"owner": uuid.uuid4().hex, "host": socket.gethostname(), **process_facts(os.getpid())}
        self.beats = 0
        self.lost = False
        self.released = threading.Event()

    def to_bytes(self) -> bytes:
        return json.dumps({**self.facts, "beats": self.beats}, sort_keys=True).encode()

    def check(self) -> None:
        """Raise TakenOverError where another driver took the run over, as after this machine slept for long."""
        if self.lost:
            raise TakenOverError(f"another 'synth generate' has taken over {self.store}: leave it to that one")

    def keep(self, beat: float) -> None:
        while not self.released.wait(beat):
            try:
                self.lost = read_holder(self.store).get("owner") != self.facts["owner"]
                if self.lost:
                    return
                self.beats += 1
                self.store.write(LOCK, self.to_bytes())
            except (UserError, OSError):
                continue  # the store is away: the run itself will say so

    def release(self) -> None:
        self.released.set()
        if read_holder(self.store).get("owner") == self.facts["owner"]:
            self.store.remove(LOCK)


@contextmanager
def locked(
    store: Store, say: Callable[[str], None], beat: float = BEAT_SECONDS, patience: float = PATIENCE_SECONDS
) -> Iterator[Lock]:
    """Hold the run's lock. Raises UserError where another driver works on the run."""
    lock = Lock(store)
    store.create()
    while not store.write_new(LOCK, lock.to_bytes()):
        seen = read_holder(store)
        if seen and may_be_alive(store, seen, say, patience):
            raise UserError(
                f"{store} is being made by another 'synth generate' (process {seen.get('pid')} on {seen.get('host')}): "
                "wait for it, end it, or choose another --out"
            )
        if read_holder(store) == seen:
            store.remove(LOCK)
    keeper = threading.Thread(target=lock.keep, args=(beat,), daemon=True)
    keeper.start()
    try:
        yield lock
    finally:
        lock.released.set()
        keeper.join()
        lock.release()


def may_be_alive(store: Store, seen: dict[str, Any], say: Callable[[str], None], patience: float) -> bool:
    here = process_facts(seen.get("pid", 0))
    if seen.get("machine") == here["machine"]:
        return here["begun"] is not None and seen.get("begun") == here["begun"]
    say(
        f"{store} has a lock of process {seen.get('pid')} on {seen.get('host')}: waiting {patience:g} s for a sign of life"
    )
    until = time.monotonic() + patience
    while time.monotonic() < until:
        time.sleep(min(1.0, patience / 10))
        now = read_holder(store)
        if now != seen:
            return bool(now)
    return False


def read_holder(store: Store) -> dict[str, Any]:
    """The lock's content; empty where there is none, or it is none of ours."""
    try:
        facts = json.loads(store.read(LOCK))
    except (FileNotFoundError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def process_facts(pid: Any) -> dict[str, Any]:
    """The machine (this boot of it, and this container) and when the process began; None where there is no such process."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        machine = socket.gethostname()
    return {"machine": machine, "pid": pid, "begun": process_begun(pid)}


def process_begun(pid: Any) -> str | None:
    if not isinstance(pid, int) or pid <= 0:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # a zombie is dead; ticks since the machine's start
    except (OSError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "unknown"
