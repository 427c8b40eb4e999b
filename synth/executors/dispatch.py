"""Which worker makes which shard. Workers may be slow, fail, or vanish; still each shard is delivered once.

Pure bookkeeping over a `Backend`: Ray in a real run, a model of a cluster in tests. The number of jobs in flight is
bounded, and nothing is kept of a shard after it is made.
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
from synth.executors.handover import Staged
from synth.shards.index import GateCounts
from synth.shards.plan import ShardJob

POLL_SECONDS = 1.0
FAILURES = 2  # how often a shard is tried again after making it raised
LOSSES = 5  # how often a shard is tried again after its worker or node died; spot machines are often withdrawn
COPIES = 3  # the most attempts at one overdue shard that run at the same time
# A shard is overdue after 4 times the median shard, but not before a minute, and not before 3 shards are made.
SLOW_FACTOR, SLOW_FLOOR, SLOW_SAMPLE = 4.0, 60.0, 3
LAST_FACTOR, LAST_FLOOR = 1.5, 10.0  # the same at a run's end, where workers are idle
PACE_SAMPLE = 5  # the shards by which the pace of a node is known
COPY_FACTOR = 1.1  # at a run's end, a shard is copied if it still takes 1.1 times the median
BENCHED_LIMITS = 10.0  # a node with an overdue shard gets no other for ten times the limit, or until it delivers
SAY_WAITING_SECONDS = 30.0

log = logging.getLogger("synth.dispatch")


class LostWorkerError(Exception):
    """The worker or its node died, whatever it was doing."""


class FailedJobError(Exception):
    """Making the shard raised."""


@dataclass(frozen=True)
class Delivery:
    """A shard's bytes or the staged shard, the node that made it, and the seconds of this, in total and by phase."""

    data: bytes | Staged
    node: str
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    gate: GateCounts | None = None  # what the quality gate counted


class Backend(Protocol):
    """Runs attempts at shards. A handle names one attempt."""

    def submit(self, job: ShardJob, avoid: frozenset[str]) -> Hashable:
        """Start an attempt, on a node that is not in `avoid`."""

    def wait(self, handles: list[Hashable], seconds: float) -> list[Hashable]:
        """Wait until an attempt has ended or the time is over, and return the attempts that have ended."""

    def result(self, handle: Hashable) -> Delivery:
        """What an ended attempt delivered.

        Raises LostWorkerError, FailedJobError, or the UserError of making the shard.
        """

    def running(self, handles: list[Hashable]) -> dict[Hashable, tuple[str, float]]:
        """The attempts that have begun: on which node, and how many seconds ago."""

    def cancel(self, handle: Hashable) -> None:
        """Stop an attempt. Its result is not needed any more."""

    def nodes(self) -> set[str]:
        """The nodes that are up and can host a worker."""

    def room(self) -> int:
        """How many jobs to keep in flight."""

    def workers(self) -> int:
        """How many jobs can be at work at the same time."""

    def now(self) -> float:
        """The time in seconds, by a clock that never jumps."""


@dataclass
class Pursuit:
    """One job in flight, and its attempts with the times of their submission, the newest last."""

    job: ShardJob
    attempts: dict[Hashable, float] = field(default_factory=dict)
    failures: int = 0
    losses: int = 0
    copies: int = 0


class Dispatch:
    """`run` makes jobs; the rest is its bookkeeping.

    Args:
        timeout: seconds after which a shard is overdue; None means 4 times the median shard.
        say: gets lines for a person.
        begun: whether shards of the run are published already, as on --resume.
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
        self.pace: dict[str, deque[float]] = {}  # the seconds of the last shards of each node
        self.bench: dict[str, float] = {}  # the nodes that get no shard, and until when
        self.last_delivery: float | None = None
        self.all_submitted = False
        self.last_look = self.last_said = backend.now()

    def run(self, jobs: Iterable[ShardJob]) -> Generator[Made, None, None]:
        """Make the jobs, and yield each once, in the order in which they end.

        Closing the generator cancels the rest.
        """
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
        """Submit jobs until as many are in flight as the backend has room for."""
        room = self.backend.room()
        while len(self.pursuits) < room:
            job = next(queue, None)
            if job is None:
                self.all_submitted = True
                return
            self.pursuits[job.number] = Pursuit(job)
            self.submit(self.pursuits[job.number])

    def submit(self, pursuit: Pursuit) -> None:
        handle = self.backend.submit(pursuit.job, self.nodes_to_avoid())
        pursuit.attempts[handle] = self.backend.now()
        self.owner[handle] = pursuit

    def nodes_to_avoid(self) -> frozenset[str]:
        """End the benches whose time is over, and return the nodes still benched.

        If no other node is up, end them all.
        """
        now = self.backend.now()
        self.bench = {node: until for node, until in self.bench.items() if now < until}
        if self.bench and not self.backend.nodes() - set(self.bench):
            self.bench.clear()
        return frozenset(self.bench)

    def settle(self, handle: Hashable) -> Made | None:
        """Take in an ended attempt.

        Returns the shard, or its failure; None if the job is still in flight or was done before.
        """
        pursuit = self.owner.pop(handle, None)
        if pursuit is None:
            return None  # another copy was faster
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
            # Before the first shard of a run is made, the same error will very likely meet all shards: give up at once.
            first = self.last_delivery is None and not self.begun
            hopeless = pursuit.failures > FAILURES or first
            return self.again_or_fail(pursuit, hopeless, str(error), error)
        except FailedJobError as error:
            pursuit.failures += 1
            return self.again_or_fail(pursuit, pursuit.failures > FAILURES, f"after {FAILURES} retries, {error}", error)
        self.seconds.append(delivery.seconds)
        self.pace.setdefault(delivery.node, deque(maxlen=PACE_SAMPLE)).append(delivery.seconds)
        self.bench.pop(delivery.node, None)
        self.last_delivery = self.backend.now()
        self.finish(pursuit)
        log.info(
            "made",
            extra={
                "shard": pursuit.job.number,
                "node": delivery.node,
                "seconds": delivery.seconds,
                "by": "worker" if isinstance(delivery.data, Staged) else "head",
                "phases": {name: round(seconds, 3) for name, seconds in delivery.phases.items()},
            },
        )
        return Made(pursuit.job, delivery.data, gate=delivery.gate)

    def again_or_fail(self, pursuit: Pursuit, hopeless: bool, reason: str, error: Exception) -> Made | None:
        """Give the job up, or submit it again unless a copy of it is at work. Returns the failure if it is given up."""
        if hopeless:
            self.finish(pursuit)
            log.error("failed", extra={"shard": pursuit.job.number, "reason": reason})
            return Made(pursuit.job, None, reason, error if isinstance(error, UserError) else None)
        log.warning("retried", extra={"shard": pursuit.job.number, "reason": str(error)[:300]})
        if not pursuit.attempts:
            self.submit(pursuit)
        return None

    def finish(self, pursuit: Pursuit) -> None:
        """Cancel the job's other attempts, because the first result counts, and drop the job."""
        for handle in pursuit.attempts:
            del self.owner[handle]
            self.backend.cancel(handle)
        del self.pursuits[pursuit.job.number]

    @property
    def limit(self) -> float:
        """The seconds after which a shard is overdue."""
        if self.timeout is not None:
            return self.timeout
        if len(self.seconds) < SLOW_SAMPLE:
            return float("inf")
        if self.ending:
            return max(LAST_FLOOR, LAST_FACTOR * median(self.seconds))
        return max(SLOW_FLOOR, SLOW_FACTOR * median(self.seconds))

    @property
    def ending(self) -> bool:
        """Whether workers are idle because no shard is left for them."""
        return self.all_submitted and len(self.owner) < self.backend.workers()

    def slow(self, node: str, seconds: float) -> bool:
        """Whether a copy elsewhere would probably end before the attempt that has run on this node for `seconds`."""
        if self.timeout is not None or not self.ending or len(self.seconds) < SLOW_SAMPLE or node not in self.pace:
            return False
        usual = median(self.seconds)
        return usual >= LAST_FLOOR and median(self.pace[node]) - seconds > COPY_FACTOR * usual

    def look_for_overdue(self) -> None:
        """Submit copies of overdue shards, and bench the nodes on which the overdue attempts run."""
        now, limit = self.backend.now(), self.limit
        if self.last_delivery is None:
            self.say_waiting(now)
        old: list[tuple[Pursuit, Hashable]] = []
        for pursuit in self.pursuits.values():
            if pursuit.job.prepares or pursuit.copies >= COPIES - 1:  # a training has no deadline
                continue
            newest = next(reversed(pursuit.attempts))
            if now - pursuit.attempts[newest] >= limit or (self.timeout is None and self.ending):
                old.append((pursuit, newest))
        if not old:
            return
        begun = self.backend.running([handle for _, handle in old])
        for pursuit, handle in old:
            node, seconds = begun.get(handle, ("", 0.0))
            if node and (seconds >= limit or self.slow(node, seconds)):
                self.bench[node] = now + BENCHED_LIMITS * limit
                self.copy(pursuit, f"has run for {seconds:.0f} s on node {node[:12]}")
            elif not node and self.stuck_in_queue(pursuit.attempts[handle], now, limit):
                self.copy(pursuit, f"has waited for a worker for {now - pursuit.attempts[handle]:.0f} s")

    def stuck_in_queue(self, submitted: float, now: float, limit: float) -> bool:
        """Whether others were delivered meanwhile: the attempt may be waiting for a node that is gone."""
        return now - submitted >= 2 * limit and self.last_delivery is not None and now - self.last_delivery < limit

    def copy(self, pursuit: Pursuit, reason: str) -> None:
        """Submit the job once more beside the attempt that is overdue."""
        pursuit.copies += 1
        log.warning("overdue", extra={"shard": pursuit.job.number, "reason": reason})
        self.say(f"shard {pursuit.job.number} {reason}: another worker makes it as well, and the first result counts")
        self.submit(pursuit)

    def say_waiting(self, now: float) -> None:
        """Say every half minute that no shard has begun yet."""
        if now - self.last_said < SAY_WAITING_SECONDS:
            return
        self.last_said = now
        if not self.backend.running(list(self.owner)):
            self.say(
                f"waiting for workers: {len(self.owner)} shards are queued and none has begun; starting nodes takes "
                "minutes (Ctrl-C ends the wait, and nothing is lost)"
            )
