"""Who makes which shard: jobs to workers that may be slow, fail, or vanish, until each is made once.

Pure bookkeeping over a `Backend`, which is Ray in earnest and a model of a cluster in tests. What is in flight is bounded,
and nothing is kept of a shard once it is made.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

from synth.basics.errors import UserError
from synth.executors.executor import Made
from synth.shards.index import GateCounts
from synth.shards.plan import ShardJob

POLL_SECONDS = 1.0
FAILURES = 2  # times that a shard whose making raised is tried again
LOSSES = 5  # times that a shard whose worker or node died is tried again; spot machines go often
COPIES = 3  # of one shard at work at most, when it is overdue
SLOW_FACTOR, SLOW_FLOOR, SLOW_SAMPLE = (
    4.0,
    60.0,
    3,
)  # overdue: 4 times the median shard, a minute at least, once 3 are made
LAST_FACTOR, LAST_FLOOR = 1.5, 10.0  # overdue at a run's end, where workers are idle anyway
BENCHED_LIMITS = 10.0  # a node that sits on a shard gets no other for ten times that limit, or until it delivers
SAY_WAITING_SECONDS = 30.0

log = logging.getLogger("synth.dispatch")


class LostWorkerError(Exception):
    """The worker died, whatever it was doing."""


class FailedJobError(Exception):
    """Making the shard raised."""


@dataclass(frozen=True)
class Delivery:
    """A shard's bytes, where they were made, how long that took, and of that each phase, in seconds."""

    data: bytes
    node: str
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    gate: GateCounts | None = None


class Backend(Protocol):
    """Where attempts run. A handle names one attempt."""

    def submit(self, job: ShardJob, avoid: frozenset[str]) -> Hashable:
        """Start an attempt on a node that is not one of `avoid`."""

    def wait(self, handles: list[Hashable], seconds: float) -> list[Hashable]:
        """Those that ended, once at least one has or the time is over."""

    def result(self, handle: Hashable) -> Delivery:
        """Raises LostWorkerError, FailedJobError, or the UserError that making the shard raised."""

    def running(self, handles: list[Hashable]) -> dict[Hashable, tuple[str, float]]:
        """Of those that have begun: on which node, and how many seconds ago."""

    def cancel(self, handle: Hashable) -> None: ...
    def nodes(self) -> set[str]:
        """Those that are up and could take an attempt."""

    def room(self) -> int:
        """How many jobs to keep in flight."""

    def now(self) -> float:
        """Seconds of a clock that never jumps."""


@dataclass
class Pursuit:
    """One job in flight: its attempts, newest last, with the time they were submitted."""

    job: ShardJob
    attempts: dict[Hashable, float] = field(default_factory=dict)
    failures: int = 0
    losses: int = 0
    copies: int = 0


class Dispatch:
    """`run` is the executor; the rest is its bookkeeping. `timeout` None means 4 times the median shard.

    `begun` says that shards of the run are there already, as on --resume.
    """

    def __init__(
        self,
        backend: Backend,
        timeout: float | None = None,
        say: Callable[[str], None] = lambda line: None,
        begun: bool = False,
    ) -> None:
        self.backend = backend
        self.begun = begun
        self.timeout = timeout
        self.say = say
        self.pursuits: dict[int, Pursuit] = {}
        self.owner: dict[Hashable, Pursuit] = {}
        self.seconds: deque[float] = deque(maxlen=100)
        self.bench: dict[str, float] = {}  # node: until when
        self.last_delivery: float | None = None
        self.all_submitted = False
        self.last_look = self.last_said = backend.now()

    def run(self, jobs: Iterable[ShardJob]) -> Generator[Made, None, None]:
        queue = iter(jobs)
        try:
            while True:
                self.fill(queue)
                if not self.owner:
                    return
                for handle in self.backend.wait(list(self.owner), POLL_SECONDS):
                    made = self.settle(handle)
                    if made is not None:
                        yield made
                if self.backend.now() - self.last_look >= POLL_SECONDS:
                    self.last_look = self.backend.now()
                    self.look_for_overdue()
        finally:
            for handle in self.owner:
                self.backend.cancel(handle)

    def fill(self, queue: Iterator[ShardJob]) -> None:
        room = self.backend.room()
        while len(self.pursuits) < room:
            job = next(queue, None)
            if job is None:
                self.all_submitted = True
                return
            self.pursuits[job.number] = Pursuit(job)
            self.submit(self.pursuits[job.number])

    def submit(self, pursuit: Pursuit) -> None:
        handle = self.backend.submit(pursuit.job, self.avoided())
        pursuit.attempts[handle] = self.backend.now()
        self.owner[handle] = pursuit

    def avoided(self) -> frozenset[str]:
        """The benched nodes; none of them where there is no other."""
        now = self.backend.now()
        self.bench = {node: until for node, until in self.bench.items() if now < until}
        if self.bench and not self.backend.nodes() - set(self.bench):
            self.bench.clear()
        return frozenset(self.bench)

    def settle(self, handle: Hashable) -> Made | None:
        """What an ended attempt comes to: a shard, a new attempt, or giving the shard up."""
        pursuit = self.owner.pop(handle, None)
        if pursuit is None:
            return None  # another copy was first
        del pursuit.attempts[handle]
        try:
            delivery = self.backend.result(handle)
        except LostWorkerError as error:
            pursuit.losses += 1
            return self.again_or_fail(
                pursuit, pursuit.losses > LOSSES, f"its worker died {pursuit.losses} times", error
            )
        except UserError as error:
            pursuit.failures += 1
            # Before the run's first shard is there, it is very likely true of all, and said at once.
            first = self.last_delivery is None and not self.begun
            hopeless = pursuit.failures > FAILURES or first
            return self.again_or_fail(pursuit, hopeless, str(error), error)
        except FailedJobError as error:
            pursuit.failures += 1
            return self.again_or_fail(pursuit, pursuit.failures > FAILURES, f"after {FAILURES} retries, {error}", error)
        self.seconds.append(delivery.seconds)
        self.bench.pop(delivery.node, None)
        self.last_delivery = self.backend.now()
        self.forget(pursuit)
        log.info(
            "made",
            extra={
                "shard": pursuit.job.number,
                "node": delivery.node,
                "seconds": delivery.seconds,
                "phases": {name: round(seconds, 3) for name, seconds in delivery.phases.items()},
            },
        )
        return Made(pursuit.job, delivery.data, gate=delivery.gate)

    def again_or_fail(self, pursuit: Pursuit, hopeless: bool, reason: str, error: Exception) -> Made | None:
        if hopeless:
            self.forget(pursuit)
            log.error("failed", extra={"shard": pursuit.job.number, "reason": reason})
            return Made(pursuit.job, None, reason, error if isinstance(error, UserError) else None)
        log.warning("retried", extra={"shard": pursuit.job.number, "reason": str(error)[:300]})
        if not pursuit.attempts:
            self.submit(pursuit)
        return None

    def forget(self, pursuit: Pursuit) -> None:
        """The first result wins: its other copies are stopped."""
        for handle in pursuit.attempts:
            del self.owner[handle]
            self.backend.cancel(handle)
        del self.pursuits[pursuit.job.number]

    @property
    def limit(self) -> float:
        """Seconds after which a shard is overdue."""
        if self.timeout is not None:
            return self.timeout
        if len(self.seconds) < SLOW_SAMPLE:
            return float("inf")
        if self.all_submitted and 2 * len(self.owner) < self.backend.room():
            return max(LAST_FLOOR, LAST_FACTOR * median(self.seconds))
        return max(SLOW_FLOOR, SLOW_FACTOR * median(self.seconds))

    def look_for_overdue(self) -> None:
        """Make overdue shards again elsewhere, and bench the nodes that sit on them until they deliver something."""
        now, limit = self.backend.now(), self.limit
        shards = (p for p in self.pursuits.values() if not p.job.prepares)  # whose training takes as long as it takes
        old = [(p, next(reversed(p.attempts))) for p in shards if p.copies < COPIES - 1]
        old = [(p, handle) for p, handle in old if now - p.attempts[handle] >= limit]
        if self.last_delivery is None:
            self.say_waiting(now)
        if not old:
            return
        begun = self.backend.running([handle for _, handle in old])
        for pursuit, handle in old:
            node, seconds = begun.get(handle, ("", 0.0))
            if node and seconds >= limit:
                self.bench[node] = now + BENCHED_LIMITS * limit
                self.copy(pursuit, f"has run for {seconds:.0f} s on node {node[:12]}")
            elif not node and self.stuck_in_queue(pursuit.attempts[handle], now, limit):
                self.copy(pursuit, f"has waited for a worker for {now - pursuit.attempts[handle]:.0f} s")

    def stuck_in_queue(self, submitted: float, now: float, limit: float) -> bool:
        """Others were delivered meanwhile: it may wait for a node that is no longer there."""
        return now - submitted >= 2 * limit and self.last_delivery is not None and now - self.last_delivery < limit

    def copy(self, pursuit: Pursuit, reason: str) -> None:
        pursuit.copies += 1
        log.warning("overdue", extra={"shard": pursuit.job.number, "reason": reason})
        self.say(f"shard {pursuit.job.number} {reason}: it is made again elsewhere, and the first result counts")
        self.submit(pursuit)

    def say_waiting(self, now: float) -> None:
        if now - self.last_said < SAY_WAITING_SECONDS:
            return
        self.last_said = now
        if not self.backend.running(list(self.owner)):
            self.say(
                f"waiting for workers: {len(self.owner)} shards are queued and none has begun; nodes that are being "
                "started take minutes (Ctrl-C ends the wait, and nothing is lost)"
            )
