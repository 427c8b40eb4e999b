"""A model of a large cluster, whose workers differ in speed, fail, die and vanish.

The real Dispatch and publish drive it.

The clock of the model skips the time in which the driver would only wait. The driver's own work counts as it passes, in
processor time, so that other programs on the machine change nothing; the work of the model does not count. A driver
that is too slow therefore leaves workers idle, as it would on a real cluster.
"""

from __future__ import annotations

import heapq
import pickle
import random
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from synth.basics.disk import sha256_of
from synth.executors.dispatch import Delivery, FailedJobError, LostWorkerError
from synth.executors.handover import Handover, Staged, StagingArea
from synth.shards.index import SHARD_NAME, shard_name
from synth.shards.plan import ShardJob
from synth.shards.store import Folder

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Fates:
    """How the modelled cluster behaves. Times are in seconds."""

    workers: int = 1000
    per_node: int = 8
    shard: float = 60.0  # the median on a node of speed 1
    spread: float = 0.15  # the sigma of the log-normal distribution of a shard's time
    slow_nodes: float = 0.05  # the share of nodes with speed `slow_speed`
    slow_speed: float = 0.5
    raises: float = 0.001  # the share of attempts that raise
    dies: float = 0.002  # the share of attempts whose worker process dies
    vanishes: float = 1 / 36000  # the rate at which a node vanishes, per second: once in ten hours
    noticed: float = 34.0  # until Ray reports the attempts of a vanished node as lost
    back: float = 300.0  # until another machine takes the place of a vanished node


@dataclass
class Attempt:
    """One attempt at a shard: where it runs and how it ends."""

    job: ShardJob
    avoid: frozenset[str]
    node: str = ""
    begun: float = 0.0
    error: Exception | None = None
    over: bool = False


@dataclass
class Tally:
    """What the model counts. Worker seconds are at speed 1 unless stated."""

    useful: float = 0.0  # worker seconds that ended in a shard
    lost: float = 0.0  # worker seconds of the clock that ended in no shard
    away: float = 0.0  # worker seconds of nodes that were not there
    passed: int = 0  # bytes of jobs and of what workers handed over, which pass the driver
    events: dict[str, int] = field(default_factory=lambda: {"raised": 0, "died": 0, "nodes vanished": 0, "copies": 0})


def off_the_clock(method: Method) -> Method:
    """The work of the model takes no time on its own clock."""

    @wraps(method)
    def wrapped(self: SimulatedCluster, *arguments: Any) -> Any:
        started = time.process_time()
        try:
            return method(self, *arguments)
        finally:
            self.own += time.process_time() - started

    return wrapped  # type: ignore[return-value]


class SimulatedCluster:
    """The `Backend` of a Dispatch. Every shard has the same `data`.

    The workers stage their shards if there is an area; otherwise they hand over the bytes.
    """

    def __init__(self, fates: Fates, data: bytes, seed: int = 0, area: StagingArea | None = None) -> None:
        self.fates, self.data, self.draw, self.area = fates, data, random.Random(seed), area
        self.sha256 = sha256_of(data)
        names = [f"node{n}" for n in range(-(-fates.workers // fates.per_node))]
        self.speed = {n: fates.slow_speed if self.draw.random() < fates.slow_nodes else 1.0 for n in names}
        self.up = set(names)
        self.idle = deque(n for n in names for _ in range(fates.per_node))
        self.queue: deque[int] = deque()
        self.attempts: dict[Hashable, Attempt] = {}
        self.at_work: dict[str, set[int]] = {n: set() for n in names}
        self.events: list[tuple[float, int, str, Any]] = []
        self.count = 0
        self.tally = Tally()
        self.skipped = self.own = 0.0  # seconds by which the clock was put forward, and that the model took
        self.started = time.process_time()
        for name in names:
            self.at(self.draw.expovariate(fates.vanishes), "vanish", name)

    @property
    def bound(self) -> float:
        """The least seconds that any driver needs: the necessary work over the capacity of the workers that were up."""
        return (self.tally.useful + self.tally.away) / self.capacity

    @property
    def capacity(self) -> float:
        """Worker seconds at speed 1 that all workers together do in a second."""
        return sum(self.speed.values()) * self.fates.per_node

    def now(self) -> float:
        return self.driver_seconds + self.skipped

    @property
    def driver_seconds(self) -> float:
        """The processor seconds that the driver itself took."""
        return time.process_time() - self.started - self.own

    def at(self, when: float, kind: str, what: Any) -> None:
        """Plan an event. `kind` is the name of the method that carries it out."""
        self.count += 1
        heapq.heappush(self.events, (when, self.count, kind, what))

    @off_the_clock
    def submit(self, job: ShardJob, avoid: frozenset[str]) -> Hashable:
        self.count += 1
        self.attempts[self.count] = Attempt(job, avoid)
        self.tally.passed += len(pickle.dumps(replace(job, classes=())))
        self.queue.append(self.count)
        handle = self.count
        self.start_waiting()
        return handle

    def start_waiting(self) -> None:
        """Begin queued attempts on idle workers."""
        while self.queue and self.idle:
            attempt = self.attempts.get(self.queue[0])
            if attempt is None or attempt.over:
                self.queue.popleft()
                continue
            place = next((i for i, node in enumerate(self.idle) if node not in attempt.avoid), None)
            if place is None:
                return
            self.begin(self.queue.popleft(), attempt, self.idle[place])
            del self.idle[place]

    def begin(self, handle: int, attempt: Attempt, node: str) -> None:
        fates = self.fates
        attempt.node, attempt.begun = node, self.now()
        self.at_work[node].add(handle)
        seconds = fates.shard * self.draw.lognormvariate(0.0, fates.spread) / self.speed[node]
        fate = self.draw.random()
        if fate < fates.raises:
            attempt.error, seconds = FailedJobError("raised"), seconds * self.draw.random()
        elif fate < fates.raises + fates.dies:
            attempt.error, seconds = LostWorkerError("died"), seconds * self.draw.random()
        self.at(self.now() + seconds, "end", handle)

    @off_the_clock
    def wait(self, handles: list[Hashable], seconds: float) -> list[Hashable]:
        until = self.now() + seconds
        ended: list[Hashable] = []
        while not ended and self.events and self.events[0][0] <= until:
            self.skipped += max(0.0, self.events[0][0] - self.now())
            while self.events and self.events[0][0] <= self.now():
                _, _, kind, what = heapq.heappop(self.events)
                ended += getattr(self, kind)(what)
        if not ended:
            self.skipped += max(0.0, until - self.now())
        return ended

    def end(self, handle: int) -> list[Hashable]:
        attempt = self.attempts.get(handle)
        if attempt is None or attempt.over or attempt.node not in self.up or handle not in self.at_work[attempt.node]:
            return []
        self.free(handle, attempt)
        return [handle]

    def free(self, handle: int, attempt: Attempt) -> None:
        attempt.over = True
        self.at_work[attempt.node].discard(handle)
        self.idle.append(attempt.node)
        self.start_waiting()

    def vanish(self, node: str) -> list[Hashable]:
        self.tally.events["nodes vanished"] += 1
        self.up.discard(node)
        self.idle = deque(n for n in self.idle if n != node)
        self.at(self.now() + self.fates.noticed, "notice", (node, self.at_work[node]))
        self.at_work[node] = set()
        self.at(self.now() + self.fates.back, "come_back", (node, self.now()))
        return []

    def notice(self, lost: tuple[str, set[int]]) -> list[Hashable]:
        for handle in lost[1]:
            self.attempts[handle].error = LostWorkerError(f"{lost[0]} is gone")
        return [handle for handle in sorted(lost[1]) if not self.attempts[handle].over]

    def come_back(self, who: tuple[str, float]) -> list[Hashable]:
        node, since = who
        self.tally.away += (self.now() - since) * self.fates.per_node * self.speed[node]
        self.up.add(node)
        self.idle.extend([node] * self.fates.per_node)
        self.at(self.now() + self.draw.expovariate(self.fates.vanishes), "vanish", node)
        self.start_waiting()
        return []

    @off_the_clock
    def result(self, handle: Hashable) -> Delivery:
        attempt = self.attempts.pop(handle)
        seconds = self.now() - attempt.begun
        if attempt.error is not None:
            self.tally.lost += seconds
            kind = "raised" if isinstance(attempt.error, FailedJobError) else "died"
            self.tally.events[kind] += 1
            raise attempt.error
        self.tally.useful += seconds * self.speed[attempt.node]
        name = shard_name(attempt.job.number)
        data = Staged(self.area.new_name(name), len(self.data), self.sha256) if self.area else self.data
        phases = dict.fromkeys(("load", "synthesis", "label", "encode", "upload"), seconds / 5)
        self.tally.passed += len(pickle.dumps((Handover(data), attempt.node, seconds, phases)))
        return Delivery(data, attempt.node, seconds, phases)

    @off_the_clock
    def running(self, handles: list[Hashable]) -> dict[Hashable, tuple[str, float]]:
        found = {h: self.attempts[h] for h in handles if h in self.attempts}
        return {h: (a.node, self.now() - a.begun) for h, a in found.items() if a.node}

    @off_the_clock
    def cancel(self, handle: Hashable) -> None:
        attempt = self.attempts[handle]
        if attempt.node and not attempt.over:
            self.tally.lost += self.now() - attempt.begun
            self.tally.events["copies"] += 1
        if attempt.node in self.up and handle in self.at_work[attempt.node]:
            self.free(handle, attempt)
        attempt.over = True

    def nodes(self) -> set[str]:
        return self.up

    def room(self) -> int:
        return 2 * self.workers()

    def workers(self) -> int:
        return self.fates.workers


class IndexOnly(Folder):
    """A store that keeps the indexes of a run, and counts its shards instead of storing them."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.seen: set[str] = set()
        self.twice = 0

    def write(self, name: str, data: bytes) -> None:
        if SHARD_NAME.fullmatch(name):
            self.count(name)
        else:
            super().write(name, data)

    def move(self, old: str, new: str, size: int) -> None:
        self.count(new)

    def count(self, name: str) -> None:
        self.twice += name in self.seen
        self.seen.add(name)
