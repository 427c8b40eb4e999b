"""What a run's request names, opened: the teacher, and the runs of shards with their hashes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from synth.basics.disk import sha256_of
from synth.basics.errors import UsageError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.class_choice import Classes
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint
from synth.checkpoint.public_start import PublicStart, read_public
from synth.shards.index import Index, RunCard, index_sha256
from synth.shards.store import Store
from unlearn import methods
from unlearn.methods.student import forget_classes, teacher_card
from unlearn.run.request import Request
from unlearn.samples.cache import open_shards
from unlearn.samples.runs import Runs, wait_for_runs


@dataclass(frozen=True)
class Opened:
    """What a request names, opened. Of the shards only the index has been read."""

    teacher: Classifier | None
    card: ModelCard  # the teacher's
    teacher_sha256: str
    runs: Runs | None  # of shards; None if they are not read
    asked: Classes  # the classes to forget, as the request has them
    public: PublicStart | None = None  # weights that the student starts from

    @cached_property
    def forget(self) -> tuple[int, ...]:
        """The numbers of the classes to forget. Raises UsageError if the teacher has no such class, or no other."""
        return forget_classes(self.asked, self.card)

    @property
    def run(self) -> RunCard:
        """What synth was asked to make, in the first run."""
        assert self.runs is not None, "no shards are read"
        return self.runs.card

    @property
    def index_sha256(self) -> Facts:
        """The hash of each run's index.json, as `digest_of` gives it; None if no shards are read."""
        if self.runs is None:
            return None
        return one_or_all([digest_of(*run) for run in zip(self.runs.stores, self.runs.indexes, strict=True)])


Facts = str | list[str | None] | None  # of one run, or of each of several


def one_or_all(facts: Sequence[str | None]) -> Facts:
    """What is recorded of runs: a list only if there are several."""
    return facts[0] if len(facts) == 1 else list(facts)


def open_inputs(request: Request, module: Any) -> Opened:
    """The teacher, and the index of the shards if the run reads them.

    Raises:
        UsageError: something is not named that the method needs, or the shards were made from another teacher.
        UserError: there is no such checkpoint or run of shards.
    """
    if not methods.needs_teacher(module):
        if not request.places:
            raise UsageError(f"{request.method} learns from shards: name their folder with --shards")
        if request.loop.monitor:
            raise UsageError(f"{request.method} has no monitor: use --no-monitor")
        runs = open_runs(request)
        at_hand = None if request.teacher is None else load_teacher(request, request.teacher)
        refuse_another_teacher(runs, at_hand)
        public = open_public(request, runs.card.teacher_sha256, at_hand)
        return Opened(at_hand, teacher_card(runs.card), runs.card.teacher_sha256, runs, request.forget, public)
    if request.teacher is None:
        raise UsageError(f"{request.method} needs the teacher: name its checkpoint with --teacher")
    teacher = load_teacher(request, request.teacher)
    assert teacher.digest is not None, "load_checkpoint sets it"
    trains = module.trains_on_shards(request.settings)
    if not request.places and trains:
        raise UsageError(f"{request.method} learns from shards: name their folder with --shards")
    watches = request.loop.monitor and request.forget and teacher.card.target is None  # the monitor watches classes
    if not request.places or not (trains or watches):
        return Opened(teacher, teacher.card, teacher.digest, None, request.forget)
    runs = open_runs(request)
    refuse_another_teacher(runs, teacher)
    return Opened(teacher, teacher.card, teacher.digest, runs, request.forget)


def load_teacher(request: Request, path: Path) -> Classifier:
    return load_checkpoint(path, trusted(request)).to(request.device)


def trusted(request: Request) -> str:
    """The architectures of the user's own code that a file may name."""
    return ",".join(filter(None, (request.trusted_architecture, request.student_arch)))


def open_public(request: Request, teacher_sha256: str, teacher: Classifier | None) -> PublicStart | None:
    """The public weights that the request names. Raises UsageError if they are the teacher's or come from them."""
    if request.start_from is None:
        return None
    public = read_public(request.start_from, trusted(request))
    public.refuse_descendant(teacher_sha256, teacher)
    return public


def refuse_another_teacher(runs: Runs, teacher: Classifier | None) -> None:
    """Raise UsageError if there is a teacher and the runs were made from another one."""
    if teacher is not None and runs.card.teacher_sha256 != teacher.digest:
        raise UsageError(f"{runs.stores[0]} was made from another teacher: name that teacher with --teacher")


def open_runs(request: Request) -> Runs:
    """The runs of shards that the request names. Raises UserError if there is none, or if they cannot be joined."""
    stores = [open_shards(place, request.way_on.again) for place in request.places]
    return Runs(stores) if request.follow_timeout is None else wait_for_runs(stores, request.follow_timeout)


def run_digest(run: RunCard) -> str:
    """The hash of what a run of synth was asked to make. It is the same while the run is being made and afterwards."""
    return sha256_of(json.dumps(run.to_json(), sort_keys=True).encode())


def digest_of(store: Store, index: Index) -> str | None:
    """The hash of the index.json of a run of synth. If it is not written yet, the hash that it will have, or would.

    None if shards are missing, for example after a training that diverged on some of them.
    """
    with suppress(FileNotFoundError):
        return index_sha256(store)
    if len(index.entries) < index.card.plan.shards:
        return None
    return sha256_of(dataclasses.replace(index, complete=True).to_bytes())
