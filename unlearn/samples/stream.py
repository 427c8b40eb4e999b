"""Samples for a student, without end: in every epoch each image comes once, as one of its views.

The shards of an epoch, in random order, are taken in windows of whole shards, and the images of a window are shuffled
together. While a student learns one window, the next one is decoded. If all shards fit in the memory, they are one
window, which stays. In 1 + V epochs an image shows itself and each of its V views once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synth.basics.errors import HopelessError
from synth.basics.phases import phase
from unlearn.samples.batch import Batch, joined
from unlearn.samples.filters import Filter, ForgetShareBelow
from unlearn.samples.floor import forget_floor, in_words
from unlearn.samples.memory import Share
from unlearn.samples.room import Room
from unlearn.samples.runs import Runs, Wait, wait_for_shards

KEPT = "kept"


@dataclass
class Window:
    """Shards whose images are shuffled together."""

    epoch: int
    shards: list[int]


@dataclass
class Place:
    """Where a stream is. The rest of it depends on this, on the seed and on the size of the windows only."""

    known: list[int] = field(default_factory=list)  # the shards that take part
    drawn: int = 0  # windows
    epoch: int = -1  # of the windows that are being drawn
    queue: list[int] = field(default_factory=list)  # the shards of that epoch that are in no window yet
    now: Window | None = None
    next: Window | None = None  # what is decoded ahead
    rest: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))  # images of `now` still to come
    counts: dict[str, int] = field(default_factory=dict)  # samples that were kept, and dropped by each filter


class Stream:
    """Samples of runs. Its state can be saved and restored: the samples that follow are the same.

    Args:
        runs: complete, unless `follow` is given.
        filters: which samples pass, by the names that are counted.
        follow: seconds to wait for a new shard of runs that are still being written.
        wait: sleeps for a number of seconds.
    """

    def __init__(
        self,
        runs: Runs,
        filters: Mapping[str, Filter],
        share: Share,
        *,
        seed: int = 0,
        follow: float | None = None,
        wait: Wait | None = None,
    ) -> None:
        self.runs, self.filters, self.window = runs, filters, share.window
        self.seed, self.follow = seed, follow
        self.waiting = {} if wait is None else {"wait": wait}
        self.room = Room(runs, share, filters, seed)
        self.at = Place(known=runs.published if follow is None else [])
        self.counted: set[int] = set()  # the shards in `counts`
        self.loaded: Window | None = None  # the window that is decoded

    @property
    def counts(self) -> dict[str, int]:
        """How many samples of the shards read so far were kept, and dropped by each filter."""
        return {name: self.at.counts.get(name, 0) for name in (KEPT, *self.filters)}

    @property
    def tallies(self) -> dict[str, int]:
        """What the filters counted besides (`unlearn.samples.filters.Tallying`)."""
        return {name: count for name, count in self.at.counts.items() if name not in (KEPT, *self.filters)}

    @property
    def whole(self) -> bool:
        """Whether all planned shards take part."""
        return len(self.at.known) == self.runs.planned

    def next(self, count: int) -> Batch:
        """The next `count` samples.

        Raises:
            UserError: a shard is missing or damaged, or no new shard came in time.
            HopelessError: the filters leave fewer than two samples of the complete runs.
        """
        parts, missing = [], count
        while missing:
            if not len(self.at.rest):
                self.turn()
            window = self.at.now
            assert window is not None
            if self.loaded is not window:  # the state was restored
                self.enter(window)
            ids, self.at.rest = self.at.rest[:missing], self.at.rest[missing:]
            with phase("gather"):
                parts.append(self.room.batch(ids, window.epoch))
            missing -= len(ids)
        return joined(parts)

    def provide_for(self, step: int, steps: int) -> None:
        """Wait until there are enough shards for a step, counted from 1: each of the planned shards allows its share of
        the steps, and the last shard the last step.
        """
        while not self.whole and min(round(steps * len(self.at.known) / self.runs.planned), steps - 1) < step:
            self.join()

    def join(self) -> None:
        """Wait for new shards and let them take part at once. They come in the present epoch as the others do."""
        assert self.follow is not None, "complete runs have no new shards"
        at = self.at
        new = wait_for_shards(self.runs, at.known, self.follow, **self.waiting)
        at.known = at.known + new
        if at.now is None:
            return
        if self.room.holds_all:
            at.now.shards += new
            self.enter(at.now)
            at.rest = self.shuffled(torch.cat([at.rest, self.room.ids(new)]), len(at.known))
        else:
            at.queue = new + at.queue

    def turn(self) -> None:
        """Go on to the next window."""
        at = self.at
        while not at.known or (len(self.counted) == len(at.known) and self.counts[KEPT] < 2):
            if self.whole:
                self.refuse_to_go_on()
            self.join()
        at.now, at.next = at.next or self.draw(), None
        self.enter(at.now)
        at.rest = self.shuffled(self.room.ids(at.now.shards))

    def draw(self) -> Window:
        """The window after those that were drawn. The first ones are smaller, so that the training begins early."""
        at = self.at
        if not at.queue:
            at.epoch += 1
            at.queue = [at.known[row] for row in self.rng(at.epoch).permutation(len(at.known))]
        size = len(at.queue) if self.room.holds_all else min(self.window, 2**at.drawn)
        at.drawn += 1
        shards, at.queue = at.queue[:size], at.queue[size:]
        return Window(at.epoch, shards)

    def enter(self, window: Window) -> None:
        """Wait until the window is decoded, and have the next one decoded meanwhile."""
        at = self.at
        self.room.keep([*window.shards, *(at.next.shards if at.next else [])])
        for shard, counts in self.room.need(window.shards).items():
            if shard not in self.counted:
                self.counted.add(shard)
                at.counts = {name: at.counts.get(name, 0) + counts[name] for name in {**at.counts, **counts}}
        if not self.room.holds_all:
            at.next = at.next or self.draw()
            self.room.request(at.next.shards)
        self.loaded = window

    def shuffled(self, ids: Tensor, *key: int) -> Tensor:
        assert self.at.now is not None
        return ids[torch.from_numpy(self.rng(self.at.now.epoch, self.at.drawn, *key).permutation(len(ids)))]

    def rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *key))

    def refuse_to_go_on(self) -> None:
        """Raise HopelessError: the filters leave too little of the complete runs."""
        counts = self.counts
        if counts[KEPT]:
            raise HopelessError(
                f"the filters leave {counts[KEPT]} sample of {self.runs}, and batch norm needs two: loosen --gate or "
                "--entropy"
            )
        reasons = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
        gate = next((f for f in self.filters.values() if isinstance(f, ForgetShareBelow)), None)
        floor = f"; {in_words(forget_floor(self.runs, gate.forget))}" if gate else ""
        raise HopelessError(
            f"the filters dropped all {sum(counts.values()):,} samples of {self.runs} ({reasons}): loosen the filter "
            f"that dropped most of them (--gate, --entropy), or make shards with other classes{floor}"
        )

    def close(self) -> None:
        """Stop decoding ahead."""
        self.room.close()

    def state_dict(self) -> dict[str, Any]:
        at = self.at
        windows = {name: window and asdict(window) for name, window in (("now", at.now), ("next", at.next))}
        return {**vars(at), **windows, "counted": sorted(self.counted)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        windows = {name: Window(**state[name]) if state[name] else None for name in ("now", "next")}
        self.counted, self.loaded = set(state["counted"]), None
        self.at = Place(**{**{f.name: state[f.name] for f in fields(Place)}, **windows})
