"""A run in its store, in the order of the work: open it, provide its generator, publish its shards, verify it.

The driver holds a few shards at a time, or none where the workers write them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import NoReturn

import torch

from synth import methods
from synth.basics.disk import sha256_of
from synth.basics.errors import UsageError, UserError
from synth.basics.progress import format_seconds
from synth.basics.way_on import RESUME
from synth.checkpoint.file import parse_card, parse_checkpoint
from synth.executors.executor import Executor, Heard, Made
from synth.executors.handover import Staged, staging_area
from synth.making.make import Recipe
from synth.making.pulse import Beat
from synth.methods.networks import LARGEST_GENERATOR, class_list, parse_generator, read_generator
from synth.run.dataset_card import CARD, has_card
from synth.run.lock import LostLockError, is_lock
from synth.run.uploads import Landed, Uploads
from synth.shards.index import (
    GENERATOR,
    INDEX,
    PART,
    SHARD_NAME,
    GateCounts,
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

PART_INTERVAL = 1.0  # the least seconds between two writings of the growing index
PART_SHARE = 0.01  # the largest share of the driver's time that goes into writing it, however long it grows

log = logging.getLogger("synth.run")


def open_run(store: Store, card: RunCard, resume: bool, overwrite: bool) -> Index:
    """Make the store ready for the run, and return the index of the shards that are published already.

    With `overwrite`, the files of the run that is there are removed first.

    Raises:
        UsageError: the store holds a run and neither resume nor overwrite was asked for; or resume was asked for and
            the store holds another run; or the store holds files that belong to no run.
    """
    if overwrite:
        clear(store)  # without reading the index, because a damaged index may be the reason for --overwrite
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
        store.remove(PART)  # it is left if a run was killed between its last two steps
    else:
        # Write the partial index before removing the complete one, so that the run always has an index.
        store.write(PART, index.to_bytes())
        store.remove(INDEX)
    return index


def refuse_existing_run(store: Store) -> None:
    """Raise UsageError if the store holds a run."""
    index = find_index(store)
    if index is not None:
        refuse(store, index)


def refuse(store: Store, index: Index) -> NoReturn:
    """Raise the UsageError for a run that is there already."""
    state = (
        "a complete run" if index.complete else f"a run with {len(index.entries)} of {index.card.plan.shards} shards"
    )
    raise UsageError(
        f"{store} already holds {state}: go on with --resume, replace it with --overwrite, or choose another --out"
    )


def begin(store: Store, card: RunCard) -> None:
    """Write the index of a run without shards. Raises UsageError if the store holds other files."""
    store.create()
    refuse_foreign(store, names_of_run(store))
    store.remove_temporaries()
    store.write(PART, Index(card, {}, complete=False).to_bytes())


def clear(store: Store) -> None:
    """Remove a run's files, the indexes last, so that an interrupted removal leaves a run that can be removed again.

    If there is no index, nothing is removed: the shards or the generator may be somebody else's.
    Raises UsageError, before anything is removed, if there are other files too.
    """
    names = names_of_run(store)
    shards = sorted(name for name in names if SHARD_NAME.fullmatch(name))
    indexes = [name for name in (INDEX, PART) if name in names]
    if indexes:
        card = [CARD] if has_card(store) else []
        refuse_foreign(store, names - {GENERATOR, *shards, *card, *indexes})
        for name in (*shards, GENERATOR, *card, *indexes):
            store.remove(name)


def names_of_run(store: Store) -> set[str]:
    """The names in the store without the run's lock."""
    return {name for name in store.names() if not is_lock(name)}


def refuse_foreign(store: Store, foreign: set[str]) -> None:
    """Raise UsageError if there are names of foreign files."""
    if foreign:
        raise UsageError(f"{store} already holds other files ({min(foreign)}, ...): choose a new folder with --out")


def first_difference(published: RunCard, wanted: RunCard) -> str:
    """The first difference of two runs' cards in words; empty if the runs are the same."""
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
    """Whether the shard is in the store with the size and the hash of its entry."""
    try:
        return sha256_of(store.fetch(entry.name, entry.size, entry.sha256)) == entry.sha256
    except FileNotFoundError:
        return False


def provide_generator(
    store: Store,
    index: Index,
    recipe: Recipe,
    execute: Executor,
    say: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> tuple[Index, Recipe]:
    """Write the run's generator into the store before any shard, and return the index and recipe that name it.

    It is the generator that was given, or else the one that the run holds, or else it is trained now, in one job. If
    the method uses no generator, index and recipe are returned as they are.

    Raises:
        UserError: the training failed; or the run has shards of another generator; or what `check` raises.
    """
    if not methods.find(recipe.method).uses_generator(recipe.settings):
        return index, recipe
    data = recipe.generator or stored_generator(store, index)
    if data is None:
        started = time.monotonic()
        say(f"training the generator (once for the run){training_words(recipe)}")
        data = trained(index.card.plan.preparation(), recipe, execute)
        if not data:
            raise UserError(f"--method {recipe.method} trained no generator with these settings")
        say(f"the generator is trained ({format_seconds(time.monotonic() - started)})")
    teacher = parse_card(recipe.checkpoint, "the teacher")
    read_generator(
        data, "the generator", index.card.teacher_sha256, teacher, student_digest(recipe), index.card.plan.classes
    )
    sha256_hex = sha256_of(data)
    if index.generator_sha256 not in (None, sha256_hex) and index.entries:
        raise UsageError(
            f"{store} holds shards of another generator ({index.generator_sha256[:12]}, not {sha256_hex[:12]}): pass "
            "that generator with --generator, or replace the run with --overwrite"
        )
    check()
    store.write(GENERATOR, data)
    index = replace(index, generator_sha256=sha256_hex)
    store.write(PART, index.to_bytes())
    return index, replace(recipe, generator=data)


def training_words(recipe: Recipe) -> str:
    """How much the generator's training is, where the method can say it: `: 600 steps of 200 images, about 3 min`."""
    method = methods.find(recipe.method)
    if not hasattr(method, "training_words"):
        return ""
    torch.set_num_threads(recipe.threads)
    teacher = parse_checkpoint(recipe.checkpoint, "the teacher", recipe.trusted_architecture)
    return f": {method.training_words(teacher, recipe.settings, recipe.device)}"


def trained(job: ShardJob, recipe: Recipe, execute: Executor) -> bytes:
    """The generator that the preparation job trains. Raises UserError if the training failed."""
    with closing(execute([job], recipe)) as results:
        made = next(results)
    if made.data is None:
        raise made.cause or UserError(f"the generator's training failed: {made.error}")
    assert isinstance(made.data, bytes)  # only shards are staged
    return made.data


def stored_generator(store: Store, index: Index) -> bytes | None:
    """The run's generator; None if it is missing, or its hash is not the one in the index."""
    try:
        data = store.read(GENERATOR, LARGEST_GENERATOR) if index.generator_sha256 else b""
    except FileNotFoundError:
        return None
    return data if sha256_of(data) == index.generator_sha256 else None


def student_digest(recipe: Recipe) -> str | None:
    return sha256_of(recipe.student) if recipe.student else None


def publish(
    store: Store,
    index: Index,
    recipe: Recipe,
    execute: Executor,
    report: Callable[[ShardEntry], None],
    now: Callable[[], float] = time.monotonic,
    check: Callable[[], None] = lambda: None,
    by: str = "head",
    again: str = RESUME,
    heard: Heard | None = None,
) -> Index:
    """Make and publish the missing shards, and complete the index.

    Args:
        report: called with each shard's entry, in the order in which the shards are published.
        now: the time in seconds.
        check: raises LostLockError if this driver may not write to the run any more; then nothing more is written.
        by: who writes the shards: one of PUBLISHERS. With `auto` each worker that can does so, else the head.
        again: what a person does after a failure of the storage on a worker.
        heard: gets the beats of the jobs in work. Between them, shards that arrived in the store are listed: the next
            shard may take an hour.

    Whatever ends the call early, the published shards stay valid and the growing index lists them.

    Raises:
        UserError: some shards failed after all retries; the error names them, and the others are published first. If
            the first shard fails before any is published, its error ends the run at once, because it will very likely
            meet all shards.
    """
    missing = (job for job in index.card.plan.jobs() if job.number not in index.entries)
    shards = Publishing(store, index, report, now, check)
    if heard is not None:
        execute = partial(execute, heard=partial(shards.beat, heard))
    staging = nullcontext() if by == "head" else staging_area(store, again, by == "workers", check)
    with staging as area:
        try:
            with closing(execute(missing, recipe, area=area) if area else execute(missing, recipe)) as results:
                shards.publish_all(results)
        finally:
            shards.rescue()
    check()
    if shards.failed:
        numbers = ", ".join(str(made.job.number) for made in shards.failed)
        raise UserError(
            f"{len(shards.failed)} of {index.card.plan.shards} shards failed: {numbers}; first error: "
            f"{shards.failed[0].error}"
        )
    whole = replace(index, entries=shards.entries, complete=True)
    store.write(INDEX, whole.to_bytes())
    store.remove(PART)
    return whole


class Publishing:
    """The shards of a run on their way: made, uploaded, listed in the growing index. The arguments are those of
    `publish`.
    """

    def __init__(
        self,
        store: Store,
        index: Index,
        report: Callable[[ShardEntry], None],
        now: Callable[[], float],
        check: Callable[[], None],
    ) -> None:
        self.store, self.index, self.report, self.now, self.check = store, index, report, now, check
        self.entries = dict(index.entries)
        self.uploads = Uploads(store)
        self.waiting: dict[int, Callable[[float], None]] = {}  # who hears of the upload of each shard on its way
        self.failed: list[Made] = []
        self.next_part = float("-inf")

    def publish_all(self, results: Iterator[Made]) -> None:
        for made in results:
            if made.data is None:
                if made.cause is not None and not self.entries and not self.waiting:
                    raise made.cause
                self.failed.append(made)
                continue
            entry = entry_of(made.job, made.data, made.gate)
            self.waiting[entry.number] = made.uploaded
            self.check()
            self.uploads.add(entry, made.data)
            self.enter(self.uploads.landed())
        self.enter(self.uploads.last())

    def beat(self, heard: Heard, beats: list[Beat]) -> None:
        """List what arrived. An error of the store, or a lost run, is met again when the next shard is made."""
        with suppress(UserError):
            self.enter(self.uploads.arrived())
        heard(beats)

    def enter(self, landed: Iterator[Landed]) -> None:
        """List uploaded shards, and write the growing index now and then."""
        for one in landed:
            self.entries[one.entry.number] = one.entry
            self.waiting.pop(one.entry.number)(one.seconds)
            facts = {"shard": one.entry.number, "samples": one.entry.samples, "seconds": one.seconds}
            log.info("published", extra=facts)
            if self.now() >= self.next_part:
                self.check()
                started = self.now()
                self.write_part()
                self.next_part = self.now() + max(PART_INTERVAL, (self.now() - started) / PART_SHARE)
            self.report(one.entry)

    def rescue(self) -> None:
        """List what can still be listed, however the run ends."""
        self.entries.update({one.entry.number: one.entry for one in self.uploads.rescued()})
        if len(self.entries) > len(self.index.entries):
            with suppress(LostLockError):
                self.check()
                self.write_part()

    def write_part(self) -> None:
        self.store.write(PART, replace(self.index, entries=self.entries).to_bytes())


def entry_of(job: ShardJob, data: bytes | Staged, gate: GateCounts | None) -> ShardEntry:
    """The index's entry of a shard that was handed over."""
    if isinstance(data, Staged):
        return ShardEntry.of_file(job, data.size, data.sha256, gate)
    return ShardEntry.of(job, data, gate)


def verify(store: Store) -> tuple[Index, list[str]]:
    """Check every hash, count, key and value of a run. Returns its index and the problems, one line per problem."""
    index = read_index(store)
    problems: list[str] = []
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
                f"{store}/{entry.name}: the class counts of the index are not those of its {len(samples)} images"
            )
    if not index.complete:
        problems.append(
            f"{store} is not complete: {len(index.entries)} of {index.card.plan.shards} shards are published"
        )
    return index, problems


def generator_problems(store: Store, index: Index) -> Iterator[str]:
    """What is wrong with the generator that the index names, one line per problem."""
    where = f"{store}/{GENERATOR}"
    data = stored_generator(store, index)
    if data is None:
        yield f"{where} is missing or damaged: the shards are not affected, but no further shards can be made"
        return
    try:
        drawn = parse_generator(data, where).card.drawn
    except UserError as error:
        yield str(error)
        return
    left_out = sorted(set(drawn) - set(index.card.plan.classes))
    if left_out:
        yield (
            f"{where} can draw the classes {class_list(left_out)}, which the run leaves out: make the run again with "
            "--overwrite"
        )
