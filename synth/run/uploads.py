"""Uploads of shards, a few at a time, so that a slow store does not hold the workers up.

A shard that a worker has staged is in the store already, and only gets its name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass

from synth.basics.errors import UserError
from synth.basics.threads import Threads
from synth.executors.handover import Staged
from synth.shards.index import ShardEntry
from synth.shards.store import Store

AT_ONCE = 4  # shards; the driver holds the bytes of only these and of the one that was just made
NAMED_AT_ONCE = 32  # staged shards, of which the driver holds nothing


@dataclass(frozen=True)
class Landed:
    """A shard that is in the store under its name, and the seconds that its upload took."""

    entry: ShardEntry
    seconds: float


class Uploads:
    """`add` each shard, then enter those that have `landed`, or meanwhile `arrived`. `last` waits for the rest."""

    def __init__(self, store: Store, at_once: int = AT_ONCE, named_at_once: int = NAMED_AT_ONCE) -> None:
        self.store, self.at_once, self.named_at_once = store, at_once, named_at_once
        self.threads = Threads(max(at_once, named_at_once))
        self.flying: dict[Future[Landed], bool] = {}  # each with whether the driver holds its bytes

    def add(self, entry: ShardEntry, data: bytes | Staged) -> None:
        self.flying[self.threads.submit(self.upload, entry, data)] = isinstance(data, bytes)

    def upload(self, entry: ShardEntry, data: bytes | Staged) -> Landed:
        started = time.monotonic()
        if isinstance(data, bytes):
            self.store.write(entry.name, data)
        else:
            self.give_name(data, entry.name)
        return Landed(entry, time.monotonic() - started)

    def give_name(self, staged: Staged, name: str) -> None:
        """Raises UserError if what the worker wrote is not there any more."""
        try:
            self.store.move(staged.name, name, staged.size)
        except FileNotFoundError as error:
            raise UserError(
                f"{self.store}/{name}: what a worker wrote is gone: go on with the same command and --resume, and with "
                "--publish head if it happens again"
            ) from error

    def landed(self) -> Iterator[Landed]:
        """The shards that are in the store since the last call.

        Waits while the largest permitted number of uploads is in flight. Raises the error of an upload that failed.
        """
        return self.until(lambda: len(self.flying) < self.named_at_once and sum(self.flying.values()) < self.at_once)

    def arrived(self) -> Iterator[Landed]:
        """The shards that are in the store since the last call, without waiting. An error waits for the next call of
        the others.
        """
        for future in [future for future in self.flying if future.done() and future.exception() is None]:
            del self.flying[future]
            yield future.result()

    def last(self) -> Iterator[Landed]:
        """Wait for all other uploads. Raises the error of an upload that failed."""
        return self.until(lambda: not self.flying)

    def until(self, few_enough: Callable[[], bool]) -> Iterator[Landed]:
        while self.flying:
            done = next((future for future in self.flying if future.done()), None)
            if done is not None:
                del self.flying[done]
                yield done.result()
            elif few_enough():
                return
            else:
                wait(self.flying, return_when=FIRST_COMPLETED)

    def rescued(self) -> list[Landed]:
        """After an error, wait for the uploads in flight, and return those that succeed."""
        self.threads.shutdown(wait=True)
        return list(self.arrived())
