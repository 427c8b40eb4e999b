"""What an executor is: a function that makes the shard jobs of a run. The executor without Ray is here as well."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Protocol

from synth.basics.errors import UserError
from synth.basics.ticks import listening
from synth.executors.handover import Staged, StagingArea
from synth.making.make import Recipe, make_shard
from synth.making.pulse import Beat, Pulse
from synth.shards.index import GateCounts
from synth.shards.plan import ShardJob

Heard = Callable[[list[Beat]], None]  # gets the latest beat of each job in work, now and then
BEAT_SECONDS = 0.5  # between the beats of this process; those of other machines are rarer


@dataclass(frozen=True)
class Made:
    """What an executor yields for a job: the shard's bytes, the shard that a worker staged, or why there is none.

    `cause` is the UserError that making the shard raised, if it was one. `uploaded` is called with the seconds that it
    took to put the bytes into the store, or to give the staged shard its name.
    """

    job: ShardJob
    data: bytes | Staged | None
    error: str = ""
    cause: UserError | None = None
    uploaded: Callable[[float], None] = lambda seconds: None
    gate: GateCounts | None = None  # what the quality gate counted


def nobody(beats: list[Beat]) -> None:
    """Hears the beats where nobody else does."""


class Executor(Protocol):
    """Makes the jobs, in any order.

    `begun` says that shards of the run are published already, so that one job's error will not meet all jobs. `area` is
    where workers on other machines stage their shards, if they can.
    """

    def __call__(
        self,
        jobs: Iterable[ShardJob],
        recipe: Recipe,
        begun: bool = False,
        heard: Heard = nobody,
        area: StagingArea | None = None,
    ) -> Generator[Made, None, None]: ...


def in_process(
    jobs: Iterable[ShardJob],
    recipe: Recipe,
    begun: bool = False,
    heard: Heard = nobody,
    area: StagingArea | None = None,
) -> Generator[Made, None, None]:
    """The executor without Ray: it makes one shard after the other in this process, and tries each once."""
    for job in jobs:
        try:
            with listening(Pulse(job, recipe, lambda beat: heard([beat]), BEAT_SECONDS)):
                result = make_shard(job, recipe)
            made = Made(job, result.data, gate=result.gate)
        except UserError as error:
            made = Made(job, None, str(error), error)
        yield made
