"""One or several runs of one teacher, read as one. Their shards are numbered through, in the order of the runs."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from synth.basics.errors import UsageError, UserError
from synth.shards.index import RunCard, find_index, read_index, read_shard
from synth.shards.plan import Plan
from synth.shards.samples import Samples
from synth.shards.store import Store

POLL_SECONDS = 1.0
Wait = Callable[[float], None]  # sleeps for a number of seconds
ALIKE = {  # what runs that are joined have in common, by its name in an error
    "teacher_sha256": "teacher",
    "image_shape": "image shape",
    "class_names": "class names",
    "target": "target",
    "mean": "normalisation",
    "std": "normalisation",
}


class Runs:
    """Runs that a student learns from together, also while they are still being written.

    Attributes:
        indexes: of each run, as last read.
        planned: the number of shards of all runs once they are complete.

    Raises:
        UsageError: the runs differ in their teacher or in what follows from it, or one of them is given twice.
        UserError: there is no run in a store.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = tuple(stores)
        self.indexes = [read_index(store) for store in stores]
        self.refuse_unlike()
        self.ends = list(accumulate(plan.shards for plan in self.plans))

    def __str__(self) -> str:
        return " and ".join(map(str, self.stores))

    @property
    def card(self) -> RunCard:
        """What synth was asked to make in the first run."""
        return self.indexes[0].card

    @property
    def plans(self) -> list[Plan]:
        return [index.card.plan for index in self.indexes]

    @property
    def classes(self) -> set[int]:
        """The classes that the runs have images of."""
        return {number for plan in self.plans for number in plan.classes}

    @property
    def planned(self) -> int:
        return self.ends[-1]

    @property
    def images(self) -> int:
        """The images of the complete runs."""
        return sum(plan.images for plan in self.plans)

    @property
    def most_images(self) -> int:
        """The images of the largest shard."""
        return max(-(-plan.images // plan.shards) for plan in self.plans)

    @property
    def most_views(self) -> int:
        """The views of an image, in the run that has most."""
        return max(plan.views for plan in self.plans)

    @property
    def complete(self) -> bool:
        return all(index.complete for index in self.indexes)

    @property
    def published(self) -> list[int]:
        """The numbers of the shards that can be read, as far as the indexes are known."""
        starts = [0, *self.ends]
        return [
            start + number
            for start, index in zip(starts, self.indexes, strict=False)
            for number in sorted(index.entries)
        ]

    def refresh(self) -> None:
        """Read the indexes of runs that are still being written again."""
        for number, (store, index) in enumerate(zip(self.stores, self.indexes, strict=True)):
            if not index.complete:
                self.indexes[number] = find_index(store) or index

    def place(self, shard: int) -> tuple[int, int]:
        """The run of a shard and the shard's number in it."""
        run = bisect_right(self.ends, shard)
        return run, shard - (self.ends[run - 1] if run else 0)

    def plan_of(self, shard: int) -> Plan:
        return self.plans[self.place(shard)[0]]

    def read(self, shard: int) -> Samples:
        """The samples of a published shard. Raises UserError if the shard is missing or damaged."""
        run, number = self.place(shard)
        index = self.indexes[run]
        return read_shard(self.stores[run], index, index.entries[number])

    def refuse_unlike(self) -> None:
        first, card = self.stores[0], self.card
        for number, (store, index) in enumerate(zip(self.stores, self.indexes, strict=True)):
            for field, name in ALIKE.items():
                if getattr(index.card, field) != getattr(card, field):
                    raise UsageError(f"{store} has another {name} than {first}: join only runs of one teacher")
            for other, earlier in zip(self.stores[:number], self.indexes, strict=False):
                if index.card == earlier.card:
                    raise UsageError(f"{store} and {other} are the same run: name each run once, or use another seed")

    def refuse_incomplete(self) -> None:
        """Raise UserError if one of the runs is still being written."""
        for store, index in zip(self.stores, self.indexes, strict=True):
            if not index.complete:
                raise UserError(
                    f"{store} has {len(index.entries)} of {index.card.plan.shards} shards: train while they are being "
                    "made with --follow, or complete the run with 'synth generate --resume'"
                )


def wait_for_runs(stores: Sequence[Store], timeout: float, wait: Wait = time.sleep) -> Runs:
    """The runs, as soon as each has an index. Raises UserError if one has none after `timeout` seconds."""
    started = time.monotonic()
    for store in stores:
        while find_index(store) is None and time.monotonic() - started < timeout:
            wait(POLL_SECONDS)
    return Runs(stores)


def wait_for_shards(runs: Runs, known: Sequence[int], timeout: float, wait: Wait = time.sleep) -> list[int]:
    """The numbers of published shards that are not `known`, as soon as there are some.

    Args:
        timeout: seconds after which to give up.

    Raises:
        UserError: no shard came in time.
    """
    started = time.monotonic()
    while True:
        runs.refresh()
        if found := sorted(set(runs.published).difference(known)):
            return found
        if time.monotonic() - started > timeout:
            raise UserError(
                f"{runs} has {len(known)} of {runs.planned} shards and got none for {timeout:g} s: look at "
                "'synth status', continue the run with 'synth generate --resume', or wait longer with --follow-timeout"
            )
        wait(POLL_SECONDS)
