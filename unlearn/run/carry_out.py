"""One run of one method: open what the request names, check it, run the method, write the run's folder."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from synth.basics.errors import HopelessError, InterruptedRunError, UsageError, UserError
from synth.basics.progress import Progress, counted
from synth.checkpoint.arithmetic import computed
from synth.checkpoint.building import refuse_useless_code
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier, check_forward
from synth.checkpoint.file import SETTINGS, refuse_untrusted
from synth.checkpoint.public_start import PublicStart
from synth.checkpoint.range_choice import words_for
from synth.run.lock import Lock, locked, refuse_held
from unlearn import methods
from unlearn.methods.method import Inputs, Method, Rehearsing
from unlearn.methods.student import fresh_card, student_card
from unlearn.real_images import RealImages, count_real_images
from unlearn.run import loggers
from unlearn.run.folder import CHECKPOINT, LOGS, POINTS, RunFolder
from unlearn.run.from_shards import RunSamples, floor_of, read_samples, share_of_memory, warn_of_missing_classes
from unlearn.run.loggers.logged_run import LoggedRun
from unlearn.run.loop import Outcome, run_method
from unlearn.run.lost_classes import Retained, retained, warning
from unlearn.run.monitor import Monitor
from unlearn.run.opening import Opened, one_or_all, open_inputs, run_digest
from unlearn.run.outlook import outlook
from unlearn.run.points_of_run import RunPoints, points_of
from unlearn.run.request import Request
from unlearn.samples.memory import Share
from unlearn.samples.near_points import Dropped
from unlearn.step_memory import refuse_large_batch


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
    points = points_of(request, module, opened, say)
    announce(opened, points, say)
    request = without_monitor(request, opened, say)
    folder = RunFolder(request.out, request.way_on)
    if not methods.needs_teacher(module):
        begun = as_begun(folder, module, request)
        images, at_hand = opened.runs.images if opened.runs else None, opened.teacher is not None
        floor = partial(floor_of, request, opened)
        filled = module.fill_in(begun, opened.run, floor, say, images, at_hand, opened.forget)
        request = dataclasses.replace(request, settings=filled)
    card = card_of_student(request, module, opened, points)
    check_networks(request, opened, card, say)
    share = share_of_memory(folder, module, request, opened, say)
    if share:
        warn_of_missing_classes(opened, say)
    claim = claim_of(request, module, opened, share, points)
    refuse_held(folder.store)
    folder.check(claim, overwrite=request.overwrite, resume=request.resume)
    if is_complete(folder, request, say):
        return
    make_student(request, module, opened, card, claim, share, points, folder, say)


def make_student(
    request: Request,
    module: Any,
    opened: Opened,
    card: ModelCard,
    claim: Mapping[str, Any],
    share: Share | None,
    points: RunPoints | None,
    folder: RunFolder,
    say: Callable[[str], None],
) -> None:
    """Run the method under the folder's lock, and write the student with its provenance."""
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
    near = None if points is None else points.near
    with count_real_images() as real_images, ExitStack() as stack:
        samples = read_samples(request, module, opened, share, near)
        if samples.training:
            stack.callback(samples.training.close)
        method, monitor = start(request, module, opened, card, samples, say, points)
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
        counts = samples.training.counts if samples.training else {}
        classes = opened.card.target is None  # a regressor's answer is rarely the very bin of its target
        kept = retained(result.student, opened.forget, monitor, samples.training) if classes else None
        facts = {
            **facts_of_inputs(opened),
            "samples": counts,
            "retained": kept and dataclasses.asdict(kept),
            "device": request.device,
            "real_images_read": real_images.count + (len(points) if points else 0),  # the points were read before
        }
        lock.check()
        if points:
            facts["points"] = note_points(points, samples, folder, say)
        path = conclude(folder, result, facts)
    say(f"wrote {path}: the student of step {result.step} ({result.ended}){in_words(counts)}")
    for line in warnings_of(kept, monitor):
        say(line)


def warnings_of(kept: Retained | None, monitor: Monitor | None) -> Iterator[str]:
    """What a person should know about the student that a run ended with."""
    if lost := warning(kept):
        yield lost
    if monitor and monitor.best is None:
        yield "warning: this student has not forgotten: it was never within --forget-bound on the synthetic hold-out"


def facts_of_inputs(opened: Opened) -> dict[str, Any]:
    """What the provenance says of the shards and the teacher."""
    if opened.runs:
        opened.runs.refresh()  # runs that were still being written may be complete by now
    return {
        "shards": one_or_all([str(store) for store in opened.runs.stores]) if opened.runs else None,
        "index_sha256": opened.index_sha256,
        "teacher_sha256": opened.teacher_sha256,
        **({"start_from_sha256": opened.public.model.digest} if opened.public else {}),
    }


def announce(opened: Opened, points: RunPoints | None, say: Callable[[str], None]) -> None:
    """Say what is to be forgotten."""
    if opened.forget:
        say(f"forgets {words_for(opened.forget, opened.card)}")
    if points:
        say(f"forgets {counted(len(points), 'point')}: samples near them are compared in {points.words}")


def note_points(
    points: RunPoints, samples: RunSamples, folder: RunFolder, say: Callable[[str], None]
) -> dict[str, Any]:
    """List the points in the folder, say what was dropped near them, and return what the provenance says of them."""
    counts = Counter(samples.training.tallies if samples.training else {}) + points.near.counts
    dropped = Dropped.of(counts, points.near)
    folder.write_json(POINTS, points.listing(dropped))
    say(dropped.words)
    return points.facts(dropped)


def without_monitor(request: Request, opened: Opened, say: Callable[[str], None]) -> Request:
    """The request; for a regressor without the monitor.

    The monitor takes a forget class among the likeliest answers for a class that comes back. A regressor that never saw
    a range also predicts values inside it, because they lie between those that it saw.
    """
    if opened.card.target is None or not request.loop.monitor:
        return request
    if request.places and not methods.find(request.method).trains_on_shards(request.settings):
        say("the monitor does not watch a range: a model that never saw it may predict values inside, too")
    return dataclasses.replace(request, loop=dataclasses.replace(request.loop, monitor=False))


def is_complete(folder: RunFolder, request: Request, say: Callable[[str], None]) -> bool:
    """Whether there is nothing to resume, which is said."""
    if not (request.resume and folder.complete):
        return False
    say(f"{request.out} is complete already")
    return True


def as_begun(folder: RunFolder, module: Any, request: Request) -> Any:
    """The settings. A run that is resumed keeps what was decided when it began."""
    if not request.resume or SETTINGS not in folder.store.names():
        return request.settings
    before = folder.settings()
    kept = {n: before[n] for n in module.FILLED_IN if getattr(request.settings, n) is None and n in before}
    return dataclasses.replace(request.settings, **kept)


def card_of_student(request: Request, module: Any, opened: Opened, points: RunPoints | None = None) -> ModelCard:
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
    if points:
        training["points"] = {"how": "forgotten", "sha256": points.points.sha256, "images": len(points.points)}
    if methods.needs_teacher(module):
        training["from_teacher"] = module.STARTS_FROM_TEACHER
    if opened.public:
        training["start_from"] = opened.public.facts()
    teacher = opened.card if module.STARTS_FROM_TEACHER else fresh_card(opened.card)
    return student_card(teacher, request.student_arch, request.student_width, training)


def check_networks(request: Request, opened: Opened, card: ModelCard, say: Callable[[str], None]) -> None:
    """Raise UserError if the student does not take the images, or if shards would choose code to run."""
    cards = [opened.card, *([opened.public.model.card] if opened.public else [])]
    why = f", because no network here is of your own code (the teacher is {opened.card.architecture})"
    refuse_useless_code(request.trusted_architecture, (each.architecture for each in cards), why)
    if opened.teacher is None and request.student_arch is None:
        refuse_untrusted(card.architecture, None, str(opened.runs), "--student-arch")
    if opened.teacher is None or (card.architecture, card.width) != (opened.card.architecture, opened.card.width):
        check_forward(Classifier.untrained(card, request.seed), "choose another --student-arch")
    if opened.public:
        opened.public.network(card, request.seed)  # refuses weights that do not fit
        warn_of_other_normalisation(opened.public, card, say)
        say(f"starts from the weights of {opened.public.name}, and ends with a new last layer")


def warn_of_other_normalisation(public: PublicStart, card: ModelCard, say: Callable[[str], None]) -> None:
    """Say so if the public weights were trained on images that were normalised otherwise.

    The student normalises as the teacher does, because it takes the teacher's place in the user's program.
    """
    theirs = public.model.card
    if (theirs.mean, theirs.std) != (card.mean, card.std):
        say(
            f"warning: {public.name} has mean {shown(theirs.mean)} and std {shown(theirs.std)}, but the "
            f"teacher has mean {shown(card.mean)} and std {shown(card.std)}, which the student takes: check the import"
        )


def shown(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def claim_of(
    request: Request, module: Any, opened: Opened, share: Share | None, points: RunPoints | None = None
) -> dict[str, Any]:
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
        **start_claim(request, opened),
        **dataclasses.asdict(request.loop),
        **dataclasses.asdict(request.settings),
        **(points.claim(request) if points else {}),
    }


def start_claim(request: Request, opened: Opened) -> dict[str, Any]:
    """The public weights that the student starts from, if it does."""
    if opened.public is None or request.start_from is None:
        return {}
    return {"start_from": str(request.start_from.resolve()), "start_from_sha256": opened.public.model.digest}


def whole_path(uri: str) -> str:
    """A place that still names the same shards from another working folder."""
    return uri if "://" in uri else str(Path(uri).resolve())


def start(
    request: Request,
    module: Any,
    opened: Opened,
    card: ModelCard,
    samples: RunSamples,
    say: Callable[[str], None],
    points: RunPoints | None = None,
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
        Inputs(
            *(opened.teacher, card, opened.forget, request.seed, request.device, samples.training, say),
            points=None if points is None else points.near,
            asked_points=None if points is None else points.points,
            public=opened.public,
        ),
        request.settings,
    )
    if request.places and not opened.runs:
        named = " and ".join(request.places)
        say(f"--shards {named} is not read: {request.method} learns from no shards here, and watches no class")
    watched = opened.forget and opened.card.target is None  # the monitor watches classes
    if methods.needs_teacher(module) and watched and not monitor and method.steps > 1:
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
    progress = Progress(method.steps, done=done, unit="steps", in_turn=True)
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
    """Such as `; 90 samples of the shards passed, dropped 10 by forget label`; empty without training on shards."""
    if not counts:
        return ""
    dropped = ", ".join(f"{count:,} by {name}" for name, count in counts.items() if name != "kept")
    return f"; {counts['kept']:,} samples of the shards passed, dropped {dropped or 'none'}"
