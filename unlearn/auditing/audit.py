"""An audit from its request to the record, the times and the resurrected pictures in its folder."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from synth.basics.disk import sha256_of
from synth.basics.errors import InterruptedRunError, UsageError
from synth.basics.progress import counted
from synth.basics.versions import package_versions
from synth.basics.way_on import WayOn
from synth.checkpoint.card import ModelCard
from synth.checkpoint.class_choice import Classes
from synth.checkpoint.file import student_file
from synth.checkpoint.range_choice import words_for
from synth.run.lock import locked, refuse_held
from synth.shards.store import open_store
from unlearn.auditing.audit_folder import AUDIT, AuditFolder
from unlearn.auditing.audit_inputs import inputs_of
from unlearn.auditing.audit_settings import AuditSettings
from unlearn.auditing.bench import Bench
from unlearn.auditing.histograms import entropy_histograms
from unlearn.auditing.images import Source, real_source, synthetic_source
from unlearn.auditing.judgement.controls import controls
from unlearn.auditing.judgement.verdict import STILL_CALLED, judge
from unlearn.auditing.measures import added_versions, check_chosen, chosen_of, left_out, run_measures
from unlearn.auditing.pictures import draw_classes
from unlearn.auditing.recognition import recognition_of_shards
from unlearn.auditing.record import origin
from unlearn.auditing.record.audited_models import data_json, models_json
from unlearn.auditing.record.record import MODEL, NOT_CHOSEN, ORIGINAL, RETRAINED, CannotRunError, NotRun
from unlearn.auditing.record.schema import VERSION, check_record, read_record
from unlearn.auditing.record.versions import PACKAGE, audit_version
from unlearn.auditing.subjects import gather, how_to_retrain
from unlearn.data import DataSource, check_data
from unlearn.settings import check_asked

WAY_ON = WayOn(command="unlearn audit", anew="start again with --overwrite")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks of an audit."""

    student: Path
    teacher: Path
    forget: Classes
    references: Sequence[Path] = ()
    public: Path | None = None  # the weights that the student started from
    data: DataSource | None = None
    shards: str | None = None
    out: Path
    settings: AuditSettings = field(default_factory=AuditSettings)
    trusted_architecture: str | None = None
    seed: int = 0
    device: str = "cpu"
    workers: int | None = None
    overwrite: bool = False
    resume: bool = False
    way_on: WayOn = WAY_ON  # of the command that a person started

    def __post_init__(self) -> None:
        check_asked(self.seed, self.forget)


def audit(request: Request, say: Callable[[str], None]) -> dict[str, Any]:
    """Run every measure that the inputs allow, write the folder, and return the record.

    The results of the experiments are kept in the folder as they come. With `resume` those of an interrupted audit are
    taken over, and the record has the values of an audit without an interruption.

    Raises:
        UsageError, UserError: the request does not fit its models, images or folder; or another process works on it.
        InterruptedRunError: Ctrl-C ended the audit.
    """
    return audit_each([request], say)[0]


def audit_each(requests: Sequence[Request], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """As `audit`, for requests that differ only in student and folder.

    What depends only on the other models and the images is computed once, so a further student costs a fraction. The
    records are those of single audits; only the times differ.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the experiments run in parallel instead, so that no sum's order depends on the machine
    try:
        with threadpool_limits(1):
            return in_turn(requests, say)
    finally:
        torch.set_num_threads(threads)


def in_turn(requests: Sequence[Request], say: Callable[[str], None]) -> list[dict[str, Any]]:
    folders = [AuditFolder(request.out, request.way_on) for request in requests]
    for request, folder in zip(requests, folders, strict=True):
        refuse_held(folder.store)
        folder.check(overwrite=request.overwrite, resume=request.resume)
    check_chosen(requests[0].settings)
    started, worked = time.monotonic(), time.process_time()
    benches, ledger, missing = prepare(requests, say)
    recognition = recognition_of(requests[0], benches[0])
    with ExitStack() as locks:
        for request, folder, bench in zip(requests, folders, benches, strict=True):
            lock = locks.enter_context(locked(folder.store, request.way_on, say))
            inputs = inputs_of(bench, request.device, versions())
            folder.begin(lock, inputs, overwrite=request.overwrite, resume=request.resume)
            bench.take_over(folder.results)
            bench.keep = folder.keep
        records = []
        for request, folder, bench in zip(requests, folders, benches, strict=True):
            if len(requests) > 1:
                say(f"{request.student}:")
            if request.resume and folder.complete:
                say(f"{request.out} is complete already")
                records.append(read_record(request.out / AUDIT))
                continue
            try:
                record, pictures, seconds = make_record(request, bench, ledger, missing, recognition, say)
            except KeyboardInterrupt:
                raise InterruptedRunError(
                    f"interrupted: the results so far are kept in {request.out}; {request.way_on.again}"
                ) from None
            check_record(record)
            seconds |= {"all": round(time.monotonic() - started, 3)}
            seconds |= {"processor": round(time.process_time() - worked, 3)}
            folder.write(
                record, pictures, {"seconds": seconds, "cores": os.cpu_count(), "workers": workers_of(request)}
            )
            records.append(record)
            started, worked = time.monotonic(), time.process_time()
    return records


def prepare(
    requests: Sequence[Request], say: Callable[[str], None]
) -> tuple[list[Bench], list[dict[str, Any]], list[NotRun]]:
    """A bench for each request, the ledger of the real images, and the inputs that are missing."""
    request = requests[0]
    lineups, missing, forget = gather(
        students=[each.student for each in requests],
        teacher=request.teacher,
        references=request.references,
        asked=request.forget,
        trusted_architecture=request.trusted_architecture,
        device=request.device,
        seed=request.seed,
        random_models=request.settings.random_models,
        public=request.public,
    )
    original = lineups[0][ORIGINAL][0]
    say(f"looks for what is left of {words_for(forget, original.card)}")
    for each, lineup in zip(requests, lineups, strict=True):
        warn_of_others(each.student, lineup[MODEL][0].card, forget, say)
    real, ledger = load_real(request, original.card, forget)
    synthetic = None
    if request.shards is not None:
        synthetic = synthetic_source(open_store(request.shards, request.way_on.again), original)
    missing += lacking(request, forget, real, synthetic)
    first = Bench(
        subjects=lineups[0],
        forget=forget,
        settings=request.settings,
        seed=request.seed,
        real=real,
        synthetic=synthetic,
        workers=workers_of(request),
        say=say,
        target=original.card.target,
    )
    check_chosen(request.settings, first)
    check_references(first, request.references)
    return [first.beside(subjects) for subjects in lineups], ledger, missing


def warn_of_others(student: Path, card: ModelCard, forget: tuple[int, ...], say: Callable[[str], None]) -> None:
    """Say so if the student's card names other forget classes than the audit asks for."""
    named = card.training.get("forget")
    forgot = [n for n in named if n in range(card.num_classes)] if isinstance(named, list) else []
    if forgot and set(forgot) != set(forget):
        say(f"warning: {student} was made to forget {words_for(forgot, card)}: check --forget")


def recognition_of(request: Request, bench: Bench) -> dict[str, Any] | None:
    """How well the shards' images are recognised; None without shards."""
    if request.shards is None or bench.target is not None:
        return None
    return recognition_of_shards(open_store(request.shards, request.way_on.again), bench.subjects, bench.forget)


def make_record(
    request: Request,
    bench: Bench,
    ledger: list[dict[str, Any]],
    missing: list[NotRun],
    recognition: dict[str, Any] | None,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], dict[str, bytes], dict[str, float]]:
    """The record, the pictures by name, and the seconds per measure. The first two depend on no clock."""
    settings, subjects = request.settings, bench.subjects
    original = subjects[ORIGINAL][0]
    say(outlook(bench))
    measurements, not_run, seconds = run_measures(bench, say)
    pictures = draw_pictures(bench, original.card.class_names)
    partial = any(n.why == NOT_CHOSEN for n in not_run)
    verdict = judge(measurements, settings.confidence, partial)
    record = {
        "format": "data-free-unlearning audit",
        "format_version": VERSION,
        "forget": list(bench.forget),
        "class_names": list(original.card.class_names),
        **({"target": original.card.target.to_json()} if original.card.target else {}),
        "seed": request.seed,
        "device": request.device,
        "settings": dataclasses.asdict(settings),
        "request": request_json(request, original.card),
        "models": models_json(request.student, request.teacher, request.references, request.public, subjects),
        "origin": origin.describe_origin(student_file(request.student), subjects[MODEL][0].digest, request.shards),
        "images": bench.judged.name if bench.judged else None,
        "recognition": recognition,
        "measurements": [m.to_json() for m in measurements],
        "not_run": [dataclasses.asdict(n) for n in (*missing, *not_run)],
        "verdict": dataclasses.asdict(verdict),
        "controls": controls(measurements, settings.confidence, partial),
        "histograms": histograms_of(bench),
        "ledger": ledger,
        "pictures": {name: sha256_of(data) for name, data in sorted(pictures.items())},
        "versions": versions(),
    }
    return json.loads(json.dumps(record)), pictures, seconds


def outlook(bench: Bench) -> str:
    """What the audit is about to do, in one line."""
    models = sum(map(len, bench.subjects.values()))
    images = f", judged on {counted(len(bench.judged.judge), 'image')}" if bench.judged else ""
    of_each = "each experiment shows its time left after its first steps"
    count = counted(len(chosen_of(bench)), "measure")
    return f"runs {count} on {counted(models, 'model')}{images}; {of_each}"


def versions() -> dict[str, str]:
    """The versions of all packages that a value may depend on, and of the rules."""
    return {
        **package_versions(),
        "scikit-learn": version("scikit-learn"),
        "scipy": version("scipy"),
        **added_versions(),
        PACKAGE: audit_version(),
    }


def draw_pictures(bench: Bench, class_names: Sequence[str]) -> dict[str, bytes]:
    """PNGs by file name: what each subject's inversion gave, and some of the shards' images."""
    pictures = {
        f"resurrection-{subject.replace(' ', '-')}.png": draw_classes(images, labels, class_names)
        for subject, (images, labels) in bench.pictures.items()
    }
    if bench.synthetic and len(bench.synthetic.fit):
        shown = bench.few(bench.synthetic.fit, 10, "pictures")
        pictures["synthesised.png"] = draw_classes(shown.images, shown.labels, class_names)
    return pictures


def histograms_of(bench: Bench) -> list[dict[str, Any]]:
    try:
        return entropy_histograms(bench)
    except CannotRunError:  # `not_run` says why
        return []


def check_references(bench: Bench, paths: Sequence[Path]) -> None:
    """Raise UsageError if a reference calls images of some forget class by it, whatever its card says of its
    training.
    """
    if bench.target is not None:  # a model that never saw a range may predict values inside
        return
    try:
        judge = bench.tested.judge
    except CannotRunError:  # there is no image to ask about
        return
    forgotten = bench.is_forgotten(judge.labels)
    labels = judge.labels[forgotten]
    to_retrain = how_to_retrain(bench.forget, judge)
    for path, model in zip(paths, bench.subjects.get(RETRAINED, ()), strict=True):
        try:
            right = bench.outputs(model, judge).logits.argmax(1)[forgotten] == labels
        except CannotRunError as error:
            raise UsageError(f"{path}: {error.why}: {to_retrain}") from error
        called = bench.most_called(right, labels)
        if called > STILL_CALLED:
            which = " of one class" if len(bench.forget) > 1 else ""
            raise UsageError(
                f"{path} calls {called:.1f} % of the forget images{which} by their class, more than {STILL_CALLED:.0f} "
                f"%: it was trained on such images and cannot be a reference; {to_retrain}"
            )


def load_real(request: Request, card: ModelCard, forget: tuple[int, ...]) -> tuple[Source | None, list[dict[str, Any]]]:
    """The real images and their ledger; None and no line without --data."""
    if request.data is None:
        return None, []
    name, data = request.data.name, request.data
    train = check_data(card, data.load("train", card), request.teacher, name, forget)
    test = check_data(card, data.load("test", card), request.teacher, name, forget, data.say)
    rng = torch.Generator().manual_seed(request.seed)
    return real_source(name, train, test, request.settings.pool, rng)


def lacking(request: Request, forget: tuple[int, ...], real: Source | None, synthetic: Source | None) -> list[NotRun]:
    """What the missing inputs leave out, why, and what would make it possible."""
    found = []
    if real is None:
        found.append(
            NotRun(
                f"on real images: {left_out('FROM_REAL')}, {left_out('FROM_REAL_FORGET')}",
                "no real image is given",
                "name the original's training and test data with --data",
            )
        )
    elif not torch.isin(real.judge.labels, torch.tensor(forget)).any():
        found.append(
            NotRun(
                f"on real images: {left_out('FROM_REAL_FORGET')}",
                f"the {real.name} have no image of the forget classes",
                "name data that still have them with --data",
            )
        )
    elif not torch.isin(real.fit.labels, torch.tensor(forget)).any():
        found.append(
            NotRun(
                f"on real images: {left_out('FROM_REAL_FORGET', but='accuracy')}",
                f"no training image beside the {real.name} is of the forget classes",
                "name data that still have them with --data",
            )
        )
    if synthetic is None:
        cure = "name a run of synth generate with --shards"
        found.append(NotRun("relearning from synthetic images", "no shards are given", cure))
    if len(request.references) == 1:
        why = "one retrained model does not show how much retrained models differ"
        cure = "name more retrained models, each with --reference"
        found.append(NotRun("distances between retrained models", why, cure))
    if len(request.references) == 2:
        why = "two retrained models hardly show how much retrained models vary"
        found.append(NotRun("a comparison with narrow bounds", why, "name a third one with --reference"))
    return found


def workers_of(request: Request) -> int:
    """Threads for the experiments. On a GPU they take turns, because they would only wait for each other there."""
    return (request.workers or os.cpu_count() or 1) if request.device == "cpu" else 1


def request_json(request: Request, card: ModelCard) -> dict[str, Any]:
    """What `unlearn replay` starts from. Paths are as the user gave them."""
    return {
        "student": str(request.student),
        "teacher": str(request.teacher),
        "references": [str(path) for path in request.references],
        **({"public": str(request.public)} if request.public else {}),
        "shards": request.shards,
        "data": data_json(request.data, card),
    }
