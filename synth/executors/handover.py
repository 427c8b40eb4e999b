"""How a finished shard gets from the worker that made it into the run's store.

A worker that can write to the store stages the shard: it writes it under a temporary name, and the driver hears only
this name, the size and the hash. Otherwise the worker hands the bytes over, and the driver writes them.

Only the driver, which holds the run's lock, ever gives a shard its own name. So a late worker of a run that was taken
over or replaced changes nothing of the run that is there now. Of two copies of a shard the first that the driver hears
of counts, even if another kind of device gave the second one other bytes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache

from synth.basics.disk import sha256_of
from synth.basics.errors import UserError
from synth.basics.phases import phase
from synth.making.make import JobResult
from synth.shards.index import GateCounts, shard_name
from synth.shards.plan import ShardJob
from synth.shards.store import Store, open_store

PUBLISHERS = ("auto", "workers", "head")
SIGN = b"The driver of this run is at work, and its workers may stage shards here."
TRIAL = b"A worker tries whether it can write here."


@dataclass(frozen=True)
class StagingArea:
    """Where workers may stage shards for one driver. While that driver works, its sign is there.

    Args:
        uri: the run's store.
        mark: a random text in the name of every file that is staged for this driver.
        again: what a person does after a failure.
        required: whether a worker that cannot stage fails, instead of handing over bytes.
    """

    uri: str
    mark: str
    again: str
    required: bool = False

    @property
    def sign(self) -> str:
        """The name of the driver's sign."""
        return f".sign.{self.mark}.tmp"

    def new_name(self, name: str) -> str:
        """A temporary name for a file that is to have this name."""
        return f".{name}.{self.mark}.{secrets.token_hex(8)}.tmp"


@dataclass(frozen=True)
class Staged:
    """A shard that a worker has put into the store under a temporary name."""

    name: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Handover:
    """What a worker hands over: the bytes of what it made, or the shard that it staged.

    `kept_from` says why a worker that was asked to stage the shard did not; otherwise it is empty.
    """

    data: bytes | Staged
    gate: GateCounts | None = None
    kept_from: str = ""


@contextmanager
def staging_area(store: Store, again: str, required: bool, check: Callable[[], None]) -> Iterator[StagingArea]:
    """A staging area in the store, open while the `with` block lasts. Then what was staged and never named is removed,
    unless `check` raises because this driver has lost the run.
    """
    area = StagingArea(store.uri, secrets.token_hex(8), again, required)
    store.write(area.sign, SIGN)
    try:
        yield area
    finally:
        with suppress(UserError, OSError):  # what is left is removed when the run is opened the next time
            check()
            store.remove_temporaries(area.mark)


def make_and_hand_over(job: ShardJob, make: Callable[[], JobResult], area: StagingArea | None) -> Handover:
    """Runs on a worker: make the job, and stage its shard if there is an area and this worker can write to it.

    Raises UserError if the area is required and the worker cannot stage, or what `make` raises.
    """
    if area is None or job.prepares:
        result = make()
        return Handover(result.data, result.gate)
    hindrance = hindrance_to_staging(area)
    if hindrance and area.required:  # before the work
        raise UserError(
            f"a worker cannot publish its shards ({hindrance}): let the workers write there, or use --publish head"
        )
    result = make()
    try:
        if not hindrance:
            with phase("upload"):
                return Handover(stage(shard_name(job.number), result.data, area), result.gate)
    except (UserError, OSError) as error:
        if area.required:
            raise UserError(f"a worker could not publish its shard: {error}") from error
        hindrance = str(error)
    return Handover(result.data, result.gate, hindrance)


@lru_cache(maxsize=1)
def store_of(area: StagingArea) -> Store:
    return open_store(area.uri, area.again)


@lru_cache(maxsize=1)
def proven(area: StagingArea) -> None:
    """Write, read back and remove a small file. Once this has worked, this process does not try it again.

    Raises UserError or OSError if it does not work.
    """
    store, name = store_of(area), area.new_name("trial")
    store.write(name, TRIAL)
    if store.read(name, len(TRIAL)) != TRIAL:
        raise UserError(f"{store} returned other bytes than were written: check the storage")
    store.remove(name)


def hindrance_to_staging(area: StagingArea) -> str:
    """Why this process cannot stage shards; empty if it can."""
    try:
        require_sign(area)
        proven(area)
    except (UserError, OSError, ValueError) as error:  # ValueError: settings of the storage's client on this machine
        return str(error)
    return ""


def require_sign(area: StagingArea) -> None:
    """Raise UserError unless this process sees the driver's sign in the store."""
    store = store_of(area)
    try:
        seen = store.read(area.sign, len(SIGN))
    except FileNotFoundError:
        seen = b""
    if seen != SIGN:
        raise UserError(
            f"{store} on the worker's machine is not the one that the driver uses, or the driver's run has ended"
        )


def stage(name: str, data: bytes, area: StagingArea) -> Staged:
    """Write the shard under a temporary name. The store checks what arrived. Without the driver's sign, because its run
    has ended or was taken over meanwhile, nothing is written.
    """
    require_sign(area)
    staged = Staged(area.new_name(name), len(data), sha256_of(data))
    store_of(area).write(staged.name, data)
    return staged


def is_there(staged: Staged, area: StagingArea) -> bool:
    """Whether the driver sees what a worker staged. A folder may look shared and not be, as with overlays."""
    try:
        return store_of(area).size(staged.name) == staged.size
    except FileNotFoundError:
        return False
