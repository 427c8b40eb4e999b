"""Shards on their way into the store, a few at a time, so that a slow store doesn't hold the workers up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from synth.shards.index import ShardEntry
from synth.shards.store import Store

AT_ONCE = 4  # shards; they and the one just made are all that the driver holds


@dataclass(frozen=True)
class Landed:
    """A shard that is in the store under its name, and the seconds that took."""

    entry: ShardEntry
    seconds: float


class Uploads:
    """`add` each shard, then list what `landed`; `last` waits for the rest."""

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
        """Those in the store since the last call; waits while as many are on their way as may be. Raises what ended one."""
        return self.down_to(self.at_once - 1)

    def last(self) -> Iterator[Landed]:
        """All the others. Raises what ended one."""
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
        """After an error: what lands all the same."""
        self.threads.shutdown(wait=True)
        return [future.result() for future in self.flying if future.exception() is None]
