"""A run: the plan's shards made by an executor and published, with resume. The driver holds a few shards at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from hashlib import sha256
from typing import NoReturn

from synth.basics.errors import UsageError, UserError
from synth.basics.progress import format_seconds
from synth.checkpoint.file import parse_card
from synth.executors.executor import Executor, Made
from synth.making.make import Recipe
from synth.methods.networks import listed, parse_generator, read_generator
from synth.run.lock import LOCK, TakenOverError
from synth.run.uploads import Landed, Uploads
from synth.shards.index import (
    GENERATOR,
    INDEX,
    PART,
    SHARD_NAME,
    Index,
    RunCard,
    ShardEntry,
    find_index,
    read_index,
    read_shard,
)
from synth.shards.plan import ShardJob
from synth.shards.read import DamagedShardError
from synth.shards.store import Store

PART_INTERVAL = 1.0  # seconds at least between two writings of the growing index
PART_SHARE = 0.01  # of the driver's time, at most, goes into writing it, however long it grows

log = logging.getLogger("synth.run")


def open_run(store: Store, card: RunCard, resume: bool, overwrite: bool) -> Index:
    """Make the store ready for the run and return what is published of it already.

    Raises:
        UsageError: the store holds a run and neither resume nor overwrite was asked for, or resume of another run, or files
            that are no run's.
    """
    if overwrite:
        clear(store)  # unread, as an index that is damaged is what it may be asked for
    index = find_index(store)
    if index is None:
        begin(store, card)
        return Index(card, {}, complete=False)
    if not resume:
        refuse(store, index)
    difference = first_difference(index.card, card)
    if difference:
        raise UsageError(f"{store} holds another run ({difference}): use its options, or choose another --out")
    intact = {number: entry for number, entry in index.entries.items() if is_intact(store, entry)}
    store.remove_temporaries()
    index = replace(index, entries=intact, complete=index.complete and len(intact) == len(index.entries))
    if index.complete:
        store.remove(PART)  # of a run that was killed between its last two steps
    else:
        # The complete index goes only after the partial one is there, so the run is never without one.
        store.write(PART, index.to_bytes())
        store.remove(INDEX)
    return index


def refuse_existing(store: Store, allowed: bool) -> None:
    """Raise UsageError where the store holds a run that nobody said to touch."""
    index = None if allowed else find_index(store)
    if index is not None:
        refuse(store, index)


def refuse(store: Store, index: Index) -> NoReturn:
    state = (
        "a complete run" if index.complete else f"a run with {len(index.entries)} of {index.card.plan.shards} shards"
    )
    raise UsageError(
        f"{store} already holds {state}: go on with --resume, replace it with --overwrite, or choose another --out"
    )


def begin(store: Store, card: RunCard) -> None:
    store.create()
    refuse_foreign(store, store.names() - {LOCK})
    store.remove_temporaries()
    store.write(PART, Index(card, {}, complete=False).to_bytes())


def clear(store: Store) -> None:
    """Remove a run's own files; the indexes last, so that what is left of it stays one, whenever it is ended.

    Without an index nothing is touched: shards alone may be anybody's, and a generator is no run of ours.
    Raises UsageError where there are other files too, before anything is removed.
    """
    names = store.names() - {LOCK}
    shards = sorted(name for name in names if SHARD_NAME.fullmatch(name))
    indexes = [name for name in (INDEX, PART) if name in names]
    if indexes:
        refuse_foreign(store, names - {GENERATOR, *shards, *indexes})
        for name in (*shards, GENERATOR, *indexes):
            store.remove(name)


def refuse_foreign(store: Store, foreign: set[str]) -> None:
    if foreign:
        raise UsageError(f"{store} already holds other files ({min(foreign)}, ...): choose a new folder with --out")


def first_difference(published: RunCard, wanted: RunCard) -> str:
    """Where two runs' cards differ, in words; empty where they don't."""
    for part in ("teacher_sha256", "method", "plan", "settings", "device"):
        old, new = getattr(published, part), getattr(wanted, part)
        if old == new:
            continue
        if part == "plan":
            old, new = vars(old), vars(new)
        if isinstance(old, dict):
            key = next(k for k in {**old, **new} if old.get(k) != new.get(k))
            return f"its {key} is {old.get(key)}, not {new.get(key)}"
        return f"its {part} is {old}, not {new}"
    return ""


def is_intact(store: Store, entry: ShardEntry) -> bool:
    try:
        return store.size(entry.name) == entry.size and sha256(store.read(entry.name)).hexdigest() == entry.sha256
    except FileNotFoundError:
        return False


def publish(
    store: Store,
    index: Index,
    recipe: Recipe,
    execute: Executor,
    report: Callable[[int], None],
    now: Callable[[], float] = time.monotonic,
    check: Callable[[], None] = lambda: None,
) -> Index:
    """Make and publish the missing shards; `report` hears of each one's sample count, in the order they are published.

    `check` raises TakenOverError where the run is another driver's by now; from then on nothing of it is written.

    Whatever ends it early, the published shards stay valid and the growing index lists them.

    Raises:
        UserError: shards that failed after all retries, named; the others are published first. Or, as long as none is there, what
            is wrong with the first one: very likely it is wrong with all.
    """
    entries = dict(index.entries)
    missing = (job for job in index.card.plan.jobs() if job.number not in index.entries)
    failed: list[Made] = []
    uploads = Uploads(store)
    heard: dict[int, Callable[[float], None]] = {}
    next_part = float("-inf")

    def enter(landed: Iterator[Landed]) -> None:
        nonlocal next_part
        for one in landed:
            entries[one.entry.number] = one.entry
            heard.pop(one.entry.number)(one.seconds)
            facts = {"shard": one.entry.number, "samples": one.entry.samples, "seconds": one.seconds}
            log.info("published", extra=facts)
            if now() >= next_part:
                check()
                started = now()
                store.write(PART, replace(index, entries=entries).to_bytes())
                next_part = now() + max(PART_INTERVAL, (now() - started) / PART_SHARE)
            report(one.entry.samples)

    try:
        with closing(execute(missing, recipe)) as results:
            for made in results:
                if made.data is None:
                    if made.cause is not None and not entries and not heard:
                        raise made.cause
                    failed.append(made)
                    continue
                entry = ShardEntry.of(made.job, made.data, made.gate)
                heard[entry.number] = made.uploaded
                check()
                uploads.add(entry, made.data)
                enter(uploads.landed())
        enter(uploads.last())
    finally:
        entries.update({one.entry.number: one.entry for one in uploads.rescued()})
        if len(entries) > len(index.entries):
            with suppress(TakenOverError):
                check()
                store.write(PART, replace(index, entries=entries).to_bytes())
    check()
    if failed:
        numbers = ", ".join(str(made.job.number) for made in failed)
        raise UserError(
            f"{len(failed)} of {index.card.plan.shards} shards failed: {numbers}; first error: {failed[0].error}"
        )
    whole = replace(index, entries=entries, complete=True)
    store.write(INDEX, whole.to_bytes())
    store.remove(PART)
    return whole


def with_generator(
    store: Store,
    index: Index,
    recipe: Recipe,
    execute: Executor,
    say: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> tuple[Index, Recipe]:
    """The index and the recipe with the generator that the run's images are made with: the recipe's own (that was given),
    the one that the run holds, or one that is trained now, in one job, and written into the run before any shard.

    Raises:
        UserError: the training failed, a run whose generator is lost is asked to go on with another, or what `check` raises.
    """
    data = recipe.generator or stored_generator(store, index)
    if data is None:
        started = time.monotonic()
        say("training the generator, once for the run, ...")
        data = trained(index.card.plan.preparation(), recipe, execute)
        if not data:
            raise UserError(f"--method {recipe.method} trained no generator with these settings")
        say(f"... {format_seconds(time.monotonic() - started)}")
    teacher = parse_card(recipe.checkpoint, "the teacher")
    read_generator(
        data, "the generator", index.card.teacher_sha256, teacher, student_digest(recipe), index.card.plan.classes
    )
    sha256_hex = sha256(data).hexdigest()
    if index.generator_sha256 not in (None, sha256_hex) and index.entries:
        raise UsageError(
            f"{store} holds shards of another generator ({index.generator_sha256[:12]}, not {sha256_hex[:12]}): give its own "
            "by --generator, or replace the run with --overwrite"
        )
    check()
    store.write(GENERATOR, data)
    index = replace(index, generator_sha256=sha256_hex)
    store.write(PART, index.to_bytes())
    return index, replace(recipe, generator=data)


def trained(job: ShardJob, recipe: Recipe, execute: Executor) -> bytes:
    with closing(execute([job], recipe)) as results:
        made = next(results)
    if made.data is None:
        raise made.cause or UserError(f"the generator's training failed: {made.error}")
    return made.data


def stored_generator(store: Store, index: Index) -> bytes | None:
    """The run's generator; None where it has none, or not with the hash that the index tells."""
    try:
        data = store.read(GENERATOR) if index.generator_sha256 else b""
    except FileNotFoundError:
        return None
    return data if sha256(data).hexdigest() == index.generator_sha256 else None


def generator_problems(store: Store, index: Index) -> Iterator[str]:
    where = f"{store}/{GENERATOR}"
    data = stored_generator(store, index)
    if data is None:
        yield f"{where} is missing or damaged: the shards are whole, but no more can be made"
        return
    try:
        drawn = parse_generator(data, where).card.drawn
    except UserError as error:
        yield str(error)
        return
    left_out = sorted(set(drawn) - set(index.card.plan.classes))
    if left_out:
        yield f"{where} can draw the classes {listed(left_out)}, which the run leaves out: make the run again with --overwrite"


def student_digest(recipe: Recipe) -> str | None:
    return sha256(recipe.student).hexdigest() if recipe.student else None


def verify(store: Store) -> tuple[Index, list[str]]:
    """Check every hash, count, key and value of a run, and return its index with what is wrong, a line each."""
    index = read_index(store)
    problems = []
    if index.generator_sha256 is not None:
        problems += generator_problems(store, index)
    for number in sorted(index.entries):
        entry = index.entries[number]
        try:
            samples = read_shard(store, index, entry)
        except DamagedShardError as error:
            problems.append(str(error))
            continue
        found = dict(sorted(index.card.plan.job(number).class_counts.items()))
        if dict(entry.class_counts) != found:
            problems.append(
                f"{store}/{entry.name}: the index counts other classes than its {len(samples)} samples have"
            )
    if not index.complete:
        problems.append(
            f"{store} is not complete: {len(index.entries)} of {index.card.plan.shards} shards are published"
        )
    return index, problems
