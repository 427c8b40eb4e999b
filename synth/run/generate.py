"""`synth generate` as a function: check the request, open the run, and publish its shards."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial

from synth import methods
from synth.basics.byte_sizes import format_bytes
from synth.basics.errors import InterruptedRunError
from synth.basics.progress import counted, format_seconds
from synth.basics.way_on import WayOn
from synth.checkpoint.range_choice import words_for
from synth.executors.choose import NO_RAY, opened
from synth.executors.executor import Executor
from synth.making.make import Recipe
from synth.methods.presets import preset_line
from synth.run.journal import configure_log
from synth.run.lock import Lock, locked, refuse_held
from synth.run.publish import open_run, provide_generator, publish, refuse_existing_run
from synth.run.request import CheckedRequest, Request, check_request, run_card
from synth.run.sizes import refuse_full_disk, whole_size
from synth.run.working import Working, working
from synth.shards.index import Index, RunCard, find_index
from synth.shards.store import Store, open_store

__all__ = ["Request", "generate_run"]

WAY_ON = WayOn(command="synth generate")


def generate_run(request: Request, say: Callable[[str], None]) -> Index:
    """Make the run that was asked for, or the shards that are missing from it. `say` gets lines for a person.

    Raises:
        UserError: with the cause and the cure; what was published until then stays valid.
    """
    asked = check_request(request)
    if asked.instead:
        say(asked.instead)
    store = open_store(request.out, WAY_ON.again)
    if not (request.resume or request.overwrite):
        refuse_existing_run(store)
    before = None
    if request.resume:
        refuse_held(store)
        before = find_index(store)
    if before is not None and request.shard_size is None:
        asked = dataclasses.replace(asked, plan=dataclasses.replace(asked.plan, shard_size=before.card.plan.shard_size))
    size = expected_size(asked, store, before)
    configure_log(request.log_level, asked.title)
    with opened(request.machines, say) as place, locked(store, WAY_ON, say) as lock:
        recipe = asked.recipe(place.device)
        card = run_card(asked.teacher, recipe, asked.plan)
        index = open_run(store, card, request.resume, request.overwrite)
        if index.complete:
            say(f"{store} is complete already: {counted(len(index.entries), 'shard')}, {index.samples:,} images")
            return index
        some = len(asked.plan.classes) < len(card.class_names)
        which = f": {words_for(asked.plan.classes, card)}" if some else ""
        say(f"{run_summary(card)}, about {format_bytes(size)}, on {place.words} ({place.device}){which}")
        say(preset_line(request.method, methods.find(request.method), request.preset, card.image_shape))
        say(what_is_left(index))
        with working(store, index, lock, say) as run:
            execute = partial(place.execute, begun=bool(index.entries), heard=run.heard)
            try:
                index, recipe = provide_generator(store, index, recipe, execute, say, lock.check)
            except KeyboardInterrupt:
                raise InterruptedRunError(f"interrupted before the first shard; {WAY_ON.again}") from None
            by = "head" if request.address == NO_RAY else request.publish
            return publish_and_say(store, index, recipe, execute, lock, run, say, by)


def expected_size(asked: CheckedRequest, store: Store, before: Index | None) -> float:
    """The bytes that the whole run will take. `before` is the index of the run that is resumed.

    Raises UserError if the disk does not hold what is still to be written.
    """
    published = before.entries.values() if before else ()
    size = whole_size(asked.layout, asked.plan.images, published)
    left = size - sum(entry.size for entry in published)
    refuse_full_disk(store, left, asked.plan.image_format, replaces=asked.request.overwrite)
    return size


def run_summary(card: RunCard) -> str:
    """The size of a run in words."""
    plan, number = card.plan, len(card.plan.classes)
    views = f", each with {counted(plan.views, 'view')}," if plan.views else ""
    classes = counted(number, "class", "es") if card.target is None else counted(number, "bin")
    return f"{plan.images:,} images of {classes}{views} in {counted(plan.shards, 'shard')}"


def what_is_left(index: Index) -> str:
    """What is there of a run, and that nobody knows yet how long the rest takes."""
    if not index.entries:
        return "the time is known after the first steps"
    there = f"{len(index.entries)} of {counted(index.card.plan.shards, 'shard')}"
    return f"{there} are published already; the time for the rest is known after the first steps"


def publish_and_say(
    store: Store,
    index: Index,
    recipe: Recipe,
    execute: Executor,
    lock: Lock,
    run: Working,
    say: Callable[[str], None],
    by: str = "head",
) -> Index:
    """Publish the missing shards, and say at the end how long it took."""
    started = time.monotonic()
    try:
        whole = publish(
            store, index, recipe, execute, run.enter, check=lock.check, by=by, again=WAY_ON.again, heard=run.heard
        )
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted: the shards published in {store} are valid; {WAY_ON.again}") from None
    finally:
        run.close()
    size = format_bytes(sum(entry.size for entry in whole.entries.values()))
    say(
        f"{store} is complete: {counted(len(whole.entries), 'shard')}, {whole.samples:,} images, {size}, "
        f"{format_seconds(time.monotonic() - started)}"
    )
    return whole
