"""A method's run from its request to its folder: open teacher and shards, check them together, run, write what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.basics.errors import HopelessError, InterruptedRunError, UsageError
from synth.basics.progress import Progress
from synth.checkpoint.arithmetic import computed
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier, check_forward
from synth.checkpoint.file import IMPORT_AGAIN, load_checkpoint
from synth.shards.index import index_sha256
from synth.shards.store import Store
from unlearn import methods
from unlearn.methods.method import Inputs, Method
from unlearn.methods.student import check_forget, network_of
from unlearn.run.folder import RunFolder
from unlearn.run.loop import Outcome, run_method
from unlearn.run.monitor import Monitor
from unlearn.run.tensorboard import events
from unlearn.samples.cache import open_shards
from unlearn.samples.filters import Filter, HeldOut, NotHeldOut, unblended
from unlearn.samples.pool import Batch
from unlearn.samples.stream import load_complete
from unlearn.settings import LoopSettings


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a method's command was asked for."""

    method: str
    settings: Any
    loop: LoopSettings
    teacher: Path
    trusted_architecture: str | None = None
    shards: str | None = None
    forget: tuple[int, ...]
    out: Path
    student_arch: str | None = None
    student_width: float | None = None
    resume: bool = False
    overwrite: bool = False
    seed: int = 0
    device: str = "cpu"
    tensorboard: Path | None = None


@dataclass(frozen=True)
class Shards:
    """What a run takes from shards: samples to train on where the method does, and the hold-out's."""

    training: Batch | None
    held_out: Batch | None
    counts: dict[str, int]
    index_sha256: str  # empty where no shard is read


def unlearn(request: Request, say: Callable[[str], None]) -> None:
    """Run the method, or go on with it, and write its folder. `say` gets lines for a person.

    Raises:
        UserError: with the cause and the cure.
        HopelessError: the method broke off; the last good student is written first.
    """
    module = methods.find(request.method)
    teacher = load_checkpoint(request.teacher, request.trusted_architecture)
    check_forget(request.forget, teacher.card)
    card = student_card(request, teacher, module.STARTS_FROM_TEACHER)
    # An architecture that doesn't exist, or not for these images, is refused before anything is written.
    check_forward(teacher, f"name another --teacher than {request.teacher}, or {IMPORT_AGAIN}")
    if (card.architecture, card.width) != (teacher.card.architecture, teacher.card.width):
        check_forward(Classifier.untrained(card, request.seed), "choose another --student-arch")
    teacher = teacher.to(request.device)
    shards = split_shards(request, module, teacher)
    monitor = monitor_for(request, shards.held_out, say)
    if request.shards and not shards.index_sha256:
        say(f"--shards {request.shards} is not read: nothing here learns from shards, and --no-monitor watches by none")
    training = shards.training.to(request.device) if shards.training else None
    inputs = Inputs(teacher, card, request.forget, request.seed, request.device, training, say)
    method = module.start(inputs, request.settings)  # checks what it is given

    folder = RunFolder(request.out, request.overwrite, request.resume)
    folder.claim(claim_of(request, teacher, shards))
    if folder.complete:
        say(f"{request.out} is complete already")
        return
    with computed(teacher, request.settings), computed(method.student, request.settings):
        result = carry_out(method, folder, request.loop, request.seed, monitor, request.tensorboard)
    path = conclude(
        folder,
        result,
        {
            "shards": request.shards if shards.index_sha256 else None,
            "index_sha256": shards.index_sha256 or None,
            "teacher_sha256": teacher.digest,
            "samples": shards.counts,
            "device": request.device,
        },
    )
    say(f"wrote {path}: the student of step {result.step} ({result.ended})")
    if monitor and monitor.best is None:
        say("warning: by the synthetic hold-outs this student has not forgotten: it was never within --forget-bound")


def monitor_for(request: Request, held_out: Batch | None, say: Callable[[str], None]) -> Monitor | None:
    """None where there is nothing to watch by. Raises UsageError where the method goes by what it sees."""
    if held_out:
        return Monitor(held_out, request.forget, request.loop)
    if getattr(request.settings, "schedule", None) == "plateau":
        raise UsageError(
            "--schedule plateau goes by synthetic hold-outs: name shards with --shards and leave the monitor on, or use "
            "--schedule constant"
        )
    if getattr(request.settings, "kind", None) != "masked-logit":
        why = "there are no --shards to hold out from" if request.shards is None else "--no-monitor"
        say(f"{why}: nothing will stop the run if the forget class comes back")
    return None


def carry_out(
    method: Method,
    folder: RunFolder,
    loop: LoopSettings,
    seed: int,
    monitor: Monitor | None = None,
    tensorboard: Path | None = None,
) -> Outcome:
    """Run the method from its beginning or from the folder's checkpoint, and say how to go on where Ctrl-C ends it."""
    checkpoint = folder.load_checkpoint()
    done = checkpoint["step"] if checkpoint else 0
    progress = Progress(method.steps, done=done, unit="steps")
    try:
        with events(tensorboard, done) as show:

            def log(step: int, values: dict[str, float]) -> None:
                folder.log(step, values)
                show(step, values)

            return run_method(
                method, loop, seed=seed, monitor=monitor, checkpoint=checkpoint,
                save=folder.save_checkpoint, log=log, keep=folder.keep_student, report=progress.advance,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted: go on from the last check in {folder.path} with the same command and --resume"
        ) from None
    finally:
        progress.close()


def conclude(folder: RunFolder, result: Outcome, facts: dict[str, Any]) -> Path:
    """Write the student, where it comes from, and nothing else. Raises HopelessError where the method broke off."""
    path = folder.save_student(result.student)
    ours = {"ended": result.ended, "student_step": result.step, "seconds": round(result.seconds, 3)}
    folder.save_provenance({**facts, **ours})
    folder.remove_checkpoint()
    if result.failure:
        raise HopelessError(f"{result.failure}; {path} is the last good student, of step {result.step}")
    return path


def student_card(request: Request, teacher: Classifier, starts_from_teacher: bool) -> ModelCard:
    """The teacher's shape and normalisation, and an architecture of the student's own where one is named."""
    architecture, width = request.student_arch, request.student_width
    if starts_from_teacher and (architecture or width):
        raise UsageError(
            f"{request.method} starts from the teacher's weights: leave out --student-arch and --student-width"
        )
    return dataclasses.replace(
        teacher.card,
        **network_of(teacher.card, architecture, width),
        training={
            "method": request.method,
            "forget": list(request.forget),
            "teacher_sha256": teacher.digest,
            "from_teacher": starts_from_teacher,
            "seed": request.seed,
            "settings": dataclasses.asdict(request.settings),
        },
    )


def split_shards(request: Request, module: Any, teacher: Classifier) -> Shards:
    """The run's samples, split by key where there is a monitor; all of them are held out where none are trained on."""
    if request.shards is None:
        if module.trains_on_shards(request.settings):
            raise UsageError(f"{request.method} learns from shards: name their folder with --shards")
        return Shards(None, None, {}, "")
    trains, watched = module.trains_on_shards(request.settings), request.loop.monitor
    if not (trains or watched):
        return Shards(None, None, {}, "")
    store = open_shards(request.shards)
    training: Batch | None = None
    counts: dict[str, int] = {}
    if trains:
        filters = module.training_filters(request.forget, request.settings)
        split = {"hold-out": NotHeldOut(request.loop.holdout)} if watched else {}
        training, counts = load(store, {**split, **filters}, teacher)
    holding = {"training": HeldOut(request.loop.holdout)} if trains else {}
    watching = load(store, {"blend": unblended, **holding}, teacher)[0] if watched else None
    return Shards(training, watching, counts, index_sha256(store))


def load(store: Store, filters: dict[str, Filter], teacher: Classifier) -> tuple[Batch, dict[str, int]]:
    pool = load_complete(store, filters)
    if pool.index.card.teacher_sha256 != teacher.digest:
        raise UsageError(f"{store} was made from another teacher: name the one it was made from with --teacher")
    return pool.samples(), {"kept": len(pool), **pool.dropped}


def claim_of(request: Request, teacher: Classifier, shards: Shards) -> dict[str, Any]:
    """What settings.json holds: all that the student depends on."""
    return {
        "method": request.method,
        "forget": request.forget,
        "seed": request.seed,
        "device": request.device,
        "student_arch": request.student_arch,
        "student_width": request.student_width,
        "teacher_sha256": teacher.digest,
        "index_sha256": shards.index_sha256 or None,
        **dataclasses.asdict(request.loop),
        **dataclasses.asdict(request.settings),
    }
