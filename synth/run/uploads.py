"""Uploads of shards, a few at a time, so that a slow store does not hold the workers up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from synth.shards.index import ShardEntry
from synth.shards.store import Store

AT_ONCE = 4  # shards; the driver holds only these and the one that was just made


@dataclass(frozen=True)
class Landed:
    """A shard that is in the store under its name, and the seconds that its upload took."""

    entry: ShardEntry
    seconds: float


class Uploads:
    """`add` each shard, then enter those that have `landed`. `last` waits for the rest."""

    def __init__(self, store: Store, at_once: int = AT_ONCE) -> None:
        self.store, self.at_once = store, at_once
        self.threads = ThreadPoolExecutor(at_once)
        self.flying: list[Future[Landed]] = []

    def add(self, entry: ShardEntry, data: bytes) -> None:
        self.flying.append(self.threads.submit(self.upload, entry, data))

    def upload(self, entry: ShardEntry, data: bytes) -> Landed:
        started = time.monotonic()
        self.store.write(entry.name, data)
        return Landed(entry, time.monotonic() - started)

    def landed(self) -> Iterator[Landed]:
        """The shards that are in the store since the last call.

        Waits while the largest permitted number of uploads is in flight. Raises the error of an upload that failed.
        """
        return self.down_to(self.at_once - 1)

    def last(self) -> Iterator[Landed]:
        """Wait for all other uploads. Raises the error of an upload that failed."""
        return self.down_to(0)

    def down_to(self, count: int) -> Iterator[Landed]:
        while self.flying:
            done = next((future for future in self.flying if future.done()), None)
            if done is not None:
                self.flying.remove(done)
                yield done.result()
            elif len(self.flying) > count:
                wait(self.flying, return_when=FIRST_COMPLETED)
            else:
                return

    def rescued(self) -> list[Landed]:
        """After an error, wait for the uploads in flight, and return those that succeed."""
        self.threads.shutdown(wait=True)
        return [future.result() for future in self.flying if future.exception() is None]
