"""The commands as functions: load what is named, check it together, call the method, write what comes out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from synth.basics.progress import Say
from synth.checkpoint.arithmetic import computed
from synth.checkpoint.classifier import check_forward
from synth.checkpoint.file import refuse_untrusted
from synth.shards.index import Index, RunCard, index_sha256, read_index
from synth.shards.store import Store
from unlearn.methods import distill as method
from unlearn.methods.distill import DistillSettings
from unlearn.methods.student import check_forget, student_card
from unlearn.run.carry_out import carry_out, conclude
from unlearn.run.folder import RunFolder
from unlearn.samples.cache import open_shards
from unlearn.samples.stream import follow, load_complete, wait_for_run
from unlearn.settings import LoopSettings

LOOP = LoopSettings(every=100, monitor=False)  # of distill: a class that is never shown doesn't come back


@dataclass(frozen=True, kw_only=True)
class DistillRequest:
    """What `unlearn distill` was asked for. `follow_timeout` None means that the run has to be complete."""

    shards: str
    forget: tuple[int, ...]
    settings: DistillSettings
    out: Path
    student_arch: str | None = None
    student_width: float | None = None
    follow_timeout: float | None = None  # seconds
    resume: bool = False
    overwrite: bool = False
    seed: int = 0
    device: str = "cpu"
    tensorboard: Path | None = None


def distill(request: DistillRequest, say: Say) -> None:
    forget, seed, device = request.forget, request.seed, request.device
    store = open_shards(request.shards)
    filters = method.filters_for(forget, request.settings)
    if request.follow_timeout is None:
        card = read_index(store).card
        check_forget(forget, card)
        pools = iter([load_complete(store, filters)])
    else:
        card = wait_for_run(store, filters, request.follow_timeout).index.card
        check_forget(forget, card)
        pools = follow(store, filters, request.follow_timeout)
    settings = method.fill_in(request.settings, card)
    card_of_student = student_card(card, forget, settings, seed, request.student_arch, request.student_width)
    if request.student_arch is None:
        refuse_untrusted(card.architecture, None, str(store), "--student-arch")
    # An architecture that doesn't exist, or not for these images, is refused before anything is written.
    work = method.Distillation(pools, card_of_student, forget, settings, seed=seed, device=device)
    check_forward(work.student, "choose another --student-arch")
    folder = RunFolder(request.out, request.overwrite, request.resume)
    folder.claim(
        {
            "method": "distill",
            "forget": forget,
            "seed": seed,
            "device": device,
            "student_arch": request.student_arch,
            "student_width": request.student_width,
            "run_sha256": run_digest(card),
            **dataclasses.asdict(settings),
        }
    )
    if folder.complete:
        say(f"{request.out} is complete already")
        return
    with computed(work.student, settings):
        result = carry_out(work, folder, LOOP, seed, tensorboard=request.tensorboard)
    if not result.failure:
        work.take_in_for(work.steps)  # for its counts, where a resumed run had no step left
    path = conclude(
        folder,
        result,
        {
            "shards": str(store),
            "index_sha256": index_digest(store, work.index),
            "teacher_sha256": card.teacher_sha256,
            "samples": work.counts,
            "device": device,
        },
    )
    dropped = ", ".join(f"{count:,} by {name}" for name, count in work.counts.items() if name != "kept")
    say(f"wrote {path}: trained on {work.counts['kept']:,} samples; dropped {dropped or 'none'}")


def run_digest(card: RunCard) -> str:
    """Of what a run of synth was asked to make, which is the same while it is made and after."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(card), sort_keys=True).encode()).hexdigest()


def index_digest(store: Store, index: Index | None) -> str | None:
    """Of the run's index.json; where its driver hasn't written that yet, or died before, of what it would write.

    None where shards are missing, as after a training that diverged on a part of them.
    """
    try:
        return index_sha256(store)
    except FileNotFoundError:
        if index is None or len(index.entries) < index.card.plan.shards:
            return None
        return hashlib.sha256(dataclasses.replace(index, complete=True).to_bytes()).hexdigest()
