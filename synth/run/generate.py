"""`synth generate` as a function: check the request, open the run, and publish its shards."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from synth.basics.errors import InterruptedRunError
from synth.basics.progress import Progress, counted, format_seconds
from synth.basics.way_on import WayOn
from synth.checkpoint.class_choice import class_words
from synth.executors.choose import opened
from synth.executors.executor import Executor
from synth.making.make import Recipe
from synth.methods.presets import preset_line
from synth.run.journal import configure_log
from synth.run.lock import Lock, locked
from synth.run.publish import open_run, provide_generator, publish, refuse_existing_run
from synth.run.request import Request, check_request, run_card
from synth.shards.index import Index
from synth.shards.plan import Plan
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
    configure_log(request.log_level, asked.title)
    with opened(request.machines, say) as place, locked(store, WAY_ON, say) as lock:
        recipe = asked.recipe(place.device)
        card = run_card(asked.teacher, recipe, asked.plan)
        index = open_run(store, card, request.resume, request.overwrite)
        if index.complete:
            say(f"{store} is complete already: {counted(len(index.entries), 'shard')}, {index.samples:,} samples")
            return index
        some = len(asked.plan.classes) < len(card.class_names)
        which = f": {class_words(asked.plan.classes, card.class_names)}" if some else ""
        say(f"{run_summary(asked.plan)}, on {place.words} ({place.device}){which}")
        say(preset_line(request.preset, card.image_shape))
        execute = partial(place.execute, begun=bool(index.entries))
        index, recipe = provide_generator(store, index, recipe, execute, say, lock.check)
        return publish_with_progress(store, index, recipe, execute, lock, say)


def run_summary(plan: Plan) -> str:
    """The size of a run in words."""
    blends = f", each with {counted(plan.blends, 'blend')}," if plan.blends else ""
    classes = counted(len(plan.classes), "class", "es")
    return f"{plan.images:,} images of {classes}{blends} in {counted(plan.shards, 'shard')}"


def publish_with_progress(
    store: Store, index: Index, recipe: Recipe, execute: Executor, lock: Lock, say: Callable[[str], None]
) -> Index:
    """Publish the missing shards under a progress line, and say at the end how long it took."""
    progress = Progress(index.card.plan.samples, done=index.samples)
    started = time.monotonic()
    try:
        whole = publish(store, index, recipe, execute, progress.advance, check=lock.check)
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted: the shards published in {store} are valid; {WAY_ON.again}") from None
    finally:
        progress.close()
    say(
        f"{store} is complete: {counted(len(whole.entries), 'shard')}, {whole.samples:,} samples, "
        f"{format_seconds(time.monotonic() - started)}"
    )
    return whole
