"""What a run takes from shards: samples to train on, a hold-out, and the memory that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.file import SETTINGS
from unlearn.run.folder import RunFolder
from unlearn.run.opening import Opened
from unlearn.run.request import Request
from unlearn.samples import memory
from unlearn.samples.filters import Filter, HeldOut, NotHeldOut
from unlearn.samples.floor import forget_floor
from unlearn.samples.hold_out import HoldOut, hold_out
from unlearn.samples.near_points import FarFromPoints, NearPoints
from unlearn.samples.stream import Stream

BY_POINTS = "distance to points"  # the name of the points' filter


@dataclass(frozen=True)
class RunSamples:
    """What a run takes from shards."""

    training: Stream | None = None
    held_out: HoldOut | None = None


def floor_of(request: Request, opened: Opened) -> float:
    """What `forget_floor` measures; 0 while a run is still being made, because its first shard may come late."""
    if not opened.forget or opened.runs is None or not opened.runs.complete or request.follow_timeout is not None:
        return 0.0
    return forget_floor(opened.runs, opened.forget)


def share_of_memory(
    folder: RunFolder, module: Any, request: Request, opened: Opened, say: Callable[[str], None]
) -> memory.Share | None:
    """How many shards are shuffled together and held in memory; None if the method trains on no shards.

    A run that is resumed keeps the window that it began with, because its student depends on it. A line is said if the
    shards take more than the memory.
    """
    amount = memory.bytes_of(request.memory)
    if opened.runs is None or not module.trains_on_shards(request.settings):
        if request.window is not None:
            raise UsageError(f"--window has no effect: {request.method} trains on no shards here, so leave it out")
        return None
    window = request.window
    if window is None and request.resume and SETTINGS in folder.store.names():
        window = folder.settings().get("window")
    share = memory.divide_memory(opened.runs, amount, window)
    needed, limit = share.slots * memory.bytes_of_shard(opened.runs), memory.memory_limit()
    if needed > limit:
        raise UserError(
            f"{share.slots} shards in memory take {needed / 2**30:.2g} GiB, more than the {limit / 2**30:.2g} GiB that "
            "this process may take: give a smaller --window, or make smaller shards (synth generate --shard-size)"
        )
    if needed > amount:
        say(
            f"{share.slots} shards in memory take {needed / 2**30:.2g} GiB, more than --memory {request.memory}: give "
            "more memory, or make smaller shards (synth generate --shard-size)"
        )
    return share


def warn_of_missing_classes(opened: Opened, say: Callable[[str], None]) -> None:
    """Say so if the shards have no image of some classes that the student should keep."""
    assert opened.runs is not None
    retain = set(range(opened.card.num_classes)).difference(opened.forget)
    there = retain & opened.runs.classes
    if there != retain:
        say(
            f"warning: the shards have images of {len(there)} of the {len(retain)} classes to retain: the student will "
            "not know the others"
        )


def read_samples(
    request: Request, module: Any, opened: Opened, share: memory.Share | None, points: NearPoints | None = None
) -> RunSamples:
    """The samples to train on and the hold-out. They share no image. The hold-out has no views.

    If the method trains on no shards, all images may be held out. If it learns from shards as they come, none are.
    """
    runs, loop = opened.runs, request.loop
    if runs is None:
        return RunSamples()
    if request.follow_timeout is None:
        runs.refuse_incomplete()
    training, watched = None, None
    watches = loop.monitor and bool(opened.forget)  # the monitor watches classes, and no single points
    if share:
        filters: dict[str, Filter] = dict(module.training_filters(opened.forget, request.settings))
        if points:
            filters[BY_POINTS] = FarFromPoints(points, fresh=opened.teacher is not None)
        if watches:
            filters = {"hold-out": NotHeldOut(loop.holdout), **filters}
        training = Stream(runs, filters, share, seed=request.seed, follow=request.follow_timeout)
    if watches:
        others = {"training": HeldOut(loop.holdout)} if share else {}
        watched = hold_out(runs, others, loop.holdout if share else 1.0, memory.bytes_of(request.memory))
    return RunSamples(training, watched)
