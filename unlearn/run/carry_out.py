"""One run of one method: open what the request names, check it, run the method, write the run's folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from synth.basics.disk import sha256_of
from synth.basics.errors import HopelessError, InterruptedRunError, UsageError, UserError
from synth.basics.progress import Progress
from synth.basics.way_on import WayOn
from synth.checkpoint.arithmetic import computed
from synth.checkpoint.card import ModelCard
from synth.checkpoint.class_choice import Classes, class_words
from synth.checkpoint.classifier import Classifier, check_forward
from synth.checkpoint.file import IMPORT_AGAIN, load_checkpoint, refuse_untrusted
from synth.run.lock import Lock, locked, refuse_held
from synth.shards.index import Index, RunCard, index_sha256
from synth.shards.store import Store
from unlearn import methods
from unlearn.methods.method import Inputs, Method, Rehearsing
from unlearn.methods.student import forget_classes, student_card, teacher_card
from unlearn.real_images import RealImages, count_real_images
from unlearn.run import loggers
from unlearn.run.folder import CHECKPOINT, LOGS, SETTINGS, RunFolder
from unlearn.run.loggers import Destination
from unlearn.run.loggers.logged_run import LoggedRun
from unlearn.run.loop import Outcome, run_method
from unlearn.run.monitor import Monitor
from unlearn.run.outlook import outlook
from unlearn.samples import memory
from unlearn.samples.cache import open_shards
from unlearn.samples.filters import Filter, HeldOut, NotHeldOut
from unlearn.samples.floor import forget_floor
from unlearn.samples.hold_out import HoldOut, hold_out
from unlearn.samples.runs import Runs, wait_for_runs
from unlearn.samples.stream import Stream
from unlearn.settings import LoopSettings, check_asked
from unlearn.step_memory import refuse_large_batch


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a method's command was asked for."""

    method: str
    settings: Any
    loop: LoopSettings
    teacher: Path | None = None  # None for a method that needs shards only
    trusted_architecture: str | None = None
    shards: str | Sequence[str] | None = None  # runs of one teacher
    memory: str = memory.DEFAULT  # for decoded images
    window: int | None = None  # shards that are shuffled together; None for as many as fit
    forget: Classes
    out: Path
    student_arch: str | None = None
    student_width: float | None = None
    follow_timeout: float | None = None  # seconds without a new shard; None requires a complete run of shards
    resume: bool = False
    overwrite: bool = False
    seed: int = 0
    device: str = "cpu"
    log_to: tuple[Destination, ...] = ()  # besides metrics.jsonl
    part: str = ""  # in a sweep: which of its runs this is, such as entropy-0.2/seed-0
    started_by: WayOn | None = None  # the command that a person started, if it is another than `unlearn METHOD`

    @property
    def way_on(self) -> WayOn:
        """What a person can do after the run broke off, for its errors."""
        return self.started_by or WayOn(command=f"unlearn {self.method}")

    @property
    def places(self) -> tuple[str, ...]:
        """The places of the runs of shards."""
        return (self.shards,) if isinstance(self.shards, str) else tuple(self.shards or ())

    def __post_init__(self) -> None:
        check_asked(self.seed, self.forget, self.student_arch, self.student_width)


@dataclass(frozen=True)
class Opened:
    """What a request names, opened. Of the shards only the index has been read."""

    teacher: Classifier | None
    card: ModelCard  # the teacher's
    teacher_sha256: str
    runs: Runs | None  # of shards; None if they are not read
    asked: Classes  # the classes to forget, as the request has them

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


@dataclass(frozen=True)
class RunSamples:
    """What a run takes from shards."""

    training: Stream | None = None
    held_out: HoldOut | None = None


def unlearn(request: Request, say: Callable[[str], None]) -> None:
    """Run the method, or resume its run, and write its folder. `say` gets lines for a person.

    What cannot work is refused before the folder is changed. A run that is complete is left as it is, and no shard is
    decoded. While the run writes its folder it holds the folder's lock.

    Raises:
        UserError: with the cause and the cure; or another process works on the folder.
        HopelessError: the method broke off. The last good student is written first.
    """
    module = methods.find(request.method)
    opened = open_inputs(request, module)
    say(f"forgets {class_words(opened.forget, opened.card.class_names)}")
    folder = RunFolder(request.out, request.way_on)
    if not methods.needs_teacher(module):
        begun = as_begun(folder, module, request)
        filled = module.fill_in(begun, opened.run, partial(floor_of, request, opened), say)
        request = dataclasses.replace(request, settings=filled)
    card = card_of_student(request, module, opened)
    check_networks(request, opened, card)
    share = share_of_memory(folder, module, request, opened, say)
    if share:
        warn_of_missing_classes(opened, say)
    claim = claim_of(request, module, opened, share)
    refuse_held(folder.store)
    folder.check(claim, overwrite=request.overwrite, resume=request.resume)
    if is_complete(folder, request, say):
        return
    logged = LoggedRun(
        place=request.out,
        settings=claim,
        part=request.part,
        replaces=request.overwrite or request.resume,
        memory=folder.path / LOGS,
        again=request.way_on.again,
        say=say,
    )
    loggers.check(request.log_to, logged)

    with count_real_images() as real_images, ExitStack() as stack:
        samples = read_samples(request, module, opened, share)
        if samples.training:
            stack.callback(samples.training.close)
        method, monitor = start(request, module, opened, card, samples, say)
        refuse_large_step(method, request.settings)
        lock = stack.enter_context(locked(folder.store, request.way_on, say))
        if is_complete(folder, request, say):  # by another process meanwhile
            return
        folder.begin(claim, overwrite=request.overwrite, resume=request.resume)
        with ExitStack() as arithmetic:
            for network in (opened.teacher, method.student):
                if network is not None:
                    arithmetic.enter_context(computed(network, request.settings))
            images = opened.runs.images if opened.runs and samples.training else None
            result = carry_out(method, folder, request, monitor, real_images, lock, logged, images)
        if opened.runs:
            opened.runs.refresh()  # runs that were still being written may be complete by now
        counts = samples.training.counts if samples.training else {}
        facts = {
            "shards": one_or_all([str(store) for store in opened.runs.stores]) if opened.runs else None,
            "index_sha256": opened.index_sha256,
            "teacher_sha256": opened.teacher_sha256,
            "samples": counts,
            "device": request.device,
            "real_images_read": real_images.count,
        }
        lock.check()
        path = conclude(folder, result, facts)
    say(f"wrote {path}: the student of step {result.step} ({result.ended}){in_words(counts)}")
    if monitor and monitor.best is None:
        say("warning: this student has not forgotten: it was never within --forget-bound on the synthetic hold-out")


def is_complete(folder: RunFolder, request: Request, say: Callable[[str], None]) -> bool:
    """Whether there is nothing to resume, which is said."""
    if not (request.resume and folder.complete):
        return False
    say(f"{request.out} is complete already")
    return True


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
        return Opened(None, teacher_card(runs.card), runs.card.teacher_sha256, runs, request.forget)
    if request.teacher is None:
        raise UsageError(f"{request.method} needs the teacher: name its checkpoint with --teacher")
    teacher = load_checkpoint(request.teacher, request.trusted_architecture).to(request.device)
    assert teacher.digest is not None, "load_checkpoint sets it"
    trains = module.trains_on_shards(request.settings)
    if not request.places and trains:
        raise UsageError(f"{request.method} learns from shards: name their folder with --shards")
    if not request.places or not (trains or request.loop.monitor):
        return Opened(teacher, teacher.card, teacher.digest, None, request.forget)
    runs = open_runs(request)
    if runs.card.teacher_sha256 != teacher.digest:
        raise UsageError(f"{runs.stores[0]} was made from another teacher: name that teacher with --teacher")
    return Opened(teacher, teacher.card, teacher.digest, runs, request.forget)


def open_runs(request: Request) -> Runs:
    """The runs of shards that the request names. Raises UserError if there is none, or if they cannot be joined."""
    stores = [open_shards(place, request.way_on.again) for place in request.places]
    return Runs(stores) if request.follow_timeout is None else wait_for_runs(stores, request.follow_timeout)


def as_begun(folder: RunFolder, module: Any, request: Request) -> Any:
    """The settings. A run that is resumed keeps what was decided when it began."""
    if not request.resume or SETTINGS not in folder.store.names():
        return request.settings
    before = folder.settings()
    kept = {n: before[n] for n in module.FILLED_IN if getattr(request.settings, n) is None and n in before}
    return dataclasses.replace(request.settings, **kept)


def floor_of(request: Request, opened: Opened) -> float:
    """What `forget_floor` measures; 0 while a run is still being made, because its first shard may come late."""
    if opened.runs is None or not opened.runs.complete or request.follow_timeout is not None:
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
    needed = share.slots * memory.bytes_of_shard(opened.runs)
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


def card_of_student(request: Request, module: Any, opened: Opened) -> ModelCard:
    """Raises UsageError if an architecture is given for a student that starts from the teacher's weights."""
    if module.STARTS_FROM_TEACHER and (request.student_arch or request.student_width):
        raise UsageError(
            f"{request.method} starts from the teacher's weights: leave out --student-arch and --student-width"
        )
    training: dict[str, Any] = {
        "method": request.method,
        "forget": list(opened.forget),
        "teacher_sha256": opened.teacher_sha256,
        "seed": request.seed,
        "settings": dataclasses.asdict(request.settings),
    }
    if methods.needs_teacher(module):
        training["from_teacher"] = module.STARTS_FROM_TEACHER
    return student_card(opened.card, request.student_arch, request.student_width, training)


def check_networks(request: Request, opened: Opened, card: ModelCard) -> None:
    """Raise UserError if the teacher or the student does not take the images, or if shards would choose code to run."""
    if opened.teacher is not None:
        check_forward(opened.teacher, f"name another --teacher than {request.teacher}, or {IMPORT_AGAIN}")
    elif request.student_arch is None:
        refuse_untrusted(card.architecture, None, str(opened.runs), "--student-arch")
    if opened.teacher is None or (card.architecture, card.width) != (opened.card.architecture, opened.card.width):
        check_forward(Classifier.untrained(card, request.seed), "choose another --student-arch")


def claim_of(request: Request, module: Any, opened: Opened, share: memory.Share | None) -> dict[str, Any]:
    """What settings.json holds: all that the student depends on, and where its inputs were (`PLACES`).

    The index of shards that are still being made has no hash yet, so a method that may follow them claims the run of
    shards by what synth was asked to make.
    """
    return {
        "method": request.method,
        "forget": opened.forget,
        "seed": request.seed,
        "device": request.device,
        "student_arch": request.student_arch,
        "student_width": request.student_width,
        "teacher_sha256": opened.teacher_sha256,
        "run_sha256": one_or_all([run_digest(index.card) for index in opened.runs.indexes]) if opened.runs else None,
        "index_sha256": opened.index_sha256 if methods.needs_teacher(module) else None,
        "window": share and share.window,
        "teacher": None if request.teacher is None else str(request.teacher.resolve()),
        "shards": one_or_all([whole_path(place) for place in request.places]) if request.places else None,
        "arch": request.trusted_architecture,
        **dataclasses.asdict(request.loop),
        **dataclasses.asdict(request.settings),
    }


def whole_path(uri: str) -> str:
    """A place that still names the same shards from another working folder."""
    return uri if "://" in uri else str(Path(uri).resolve())


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


def read_samples(request: Request, module: Any, opened: Opened, share: memory.Share | None) -> RunSamples:
    """The samples to train on and the hold-out. They share no image. The hold-out has no views.

    If the method trains on no shards, all images may be held out. If it learns from shards as they come, none are.
    """
    runs, loop = opened.runs, request.loop
    if runs is None:
        return RunSamples()
    if request.follow_timeout is None:
        runs.refuse_incomplete()
    training, watched = None, None
    if share:
        filters: dict[str, Filter] = dict(module.training_filters(opened.forget, request.settings))
        if loop.monitor:
            filters = {"hold-out": NotHeldOut(loop.holdout), **filters}
        training = Stream(runs, filters, share, seed=request.seed, follow=request.follow_timeout)
    if loop.monitor:
        others = {"training": HeldOut(loop.holdout)} if share else {}
        watched = hold_out(runs, others, loop.holdout if share else 1.0, memory.bytes_of(request.memory))
    return RunSamples(training, watched)


def start(
    request: Request, module: Any, opened: Opened, card: ModelCard, samples: RunSamples, say: Callable[[str], None]
) -> tuple[Method, Monitor | None]:
    """The method at work and its monitor.

    Raises UsageError if the method needs the monitor and there is none, and what the method finds wrong with its
    inputs.
    """
    monitor = Monitor(samples.held_out, opened.forget, request.loop) if samples.held_out else None
    why = methods.why_monitor(module, request.settings)
    if why and not monitor:
        raise UsageError(why)
    method: Method = module.start(
        Inputs(opened.teacher, card, opened.forget, request.seed, request.device, samples.training, say),
        request.settings,
    )
    if request.places and not opened.runs:
        named = " and ".join(request.places)
        say(f"--shards {named} is not read: {request.method} learns from no shards here, and has no monitor")
    if methods.needs_teacher(module) and not monitor and method.steps > 1:
        why = "without --shards there is no hold-out" if not request.places else "--no-monitor"
        say(f"{why}: nothing will stop the run if the forget class comes back")
    return method, monitor


def refuse_large_step(method: Method, settings: Any) -> None:
    """Raise UsageError if the memory does not hold a step of a method that trains a network."""
    batch_size = getattr(settings, "batch_size", None)  # a method from outside may have none
    if batch_size is None or not any(weights.requires_grad for weights in method.student.parameters()):
        return
    with computed(method.student, settings):
        rehearse = method.rehearse if isinstance(method, Rehearsing) else None
        refuse_large_batch(method.student, batch_size, rehearse)


def carry_out(
    method: Method,
    folder: RunFolder,
    request: Request,
    monitor: Monitor | None,
    real_images: RealImages,
    lock: Lock,
    logged: LoggedRun,
    images: int | None,
) -> Outcome:
    """Run the method from its beginning or from the folder's checkpoint. It learns from this number of stored images.

    Raises:
        InterruptedRunError: Ctrl-C ended the run.
        LostLockError: another process has taken the folder over.
        UserError: the checkpoint is from another version; or the metrics or the checkpoint cannot be written.
    """
    checkpoint = folder.load_checkpoint()
    if checkpoint and checkpoint["parts"].keys() != method.parts.keys():
        raise UserError(f"{folder.path / CHECKPOINT} is from another version: {request.way_on.anew}")
    done = checkpoint["step"] if checkpoint else 0
    if checkpoint:
        real_images.count += checkpoint.get("real_images_read", 0)  # by the processes that ran the steps before
    if method.steps > 1:
        logged.say(outlook(method.student.card.architecture, method.steps, done, request.settings, images))
    progress = Progress(method.steps, done=done, unit="steps")
    try:
        with loggers.opened(request.log_to, dataclasses.replace(logged, done=done)) as log_elsewhere:

            def log(step: int, values: dict[str, float]) -> None:
                lock.check()  # before anything of this check is written
                folder.log(step, values)
                log_elsewhere(step, values)

            return run_method(
                method,
                request.loop,
                seed=request.seed,
                monitor=monitor,
                checkpoint=checkpoint,
                save=lambda state: folder.save_checkpoint({**state, "real_images_read": real_images.count}),
                log=log,
                keep=folder.keep_student,
                report=progress.advance,
            )
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted: the run in {folder.path} is kept up to its last check; {request.way_on.again}"
        ) from None
    finally:
        progress.close()


def conclude(folder: RunFolder, result: Outcome, facts: Mapping[str, Any]) -> Path:
    """Write the student and its provenance, and return the student's file. Raises HopelessError if the method broke
    off.
    """
    path = folder.save_student(result.student)
    ours = {"ended": result.ended, "student_step": result.step, "seconds": round(result.seconds, 3)}
    folder.save_provenance({**facts, **ours})
    folder.remove_checkpoint()
    if result.failure:
        raise HopelessError(f"{result.failure}; {path} is the last good student, of step {result.step}")
    return path


def in_words(counts: Mapping[str, int]) -> str:
    """Such as `; trained on 90 samples, dropped 10 by forget label`; empty if the method trained on no shards."""
    if not counts:
        return ""
    dropped = ", ".join(f"{count:,} by {name}" for name, count in counts.items() if name != "kept")
    return f"; trained on {counts['kept']:,} samples, dropped {dropped or 'none'}"
