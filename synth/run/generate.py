"""`synth generate` as a function: a request checked, a run opened, its shards made on Ray or here, and published."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from synth import methods
from synth.basics.device import local_device
from synth.basics.errors import InterruptedRunError, UsageError, UserError
from synth.basics.progress import Progress, counted, format_seconds
from synth.basics.versions import package_versions
from synth.checkpoint.card import ModelCard, check_classes
from synth.checkpoint.classifier import Classifier, check_forward
from synth.checkpoint.file import IMPORT_AGAIN, parse_card, parse_checkpoint, read_checkpoint
from synth.executors.executor import Executor, in_process
from synth.making.gate import QualityGate
from synth.making.make import Recipe
from synth.methods.networks import read_generator
from synth.run.journal import configure
from synth.run.lock import Lock, locked
from synth.run.publish import open_run, publish, refuse_existing, with_generator
from synth.shards.index import Index, RunCard
from synth.shards.plan import Plan
from synth.shards.samples import LARGEST_SHARD, PIXEL_MODES, largest_size
from synth.shards.store import Store, open_store


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `synth generate` was asked for; the fields are its options."""

    teacher: Path
    trusted_architecture: str | None
    method: str
    settings: Any
    classes: tuple[int, ...] | None
    per_class: int
    shard_size: int
    blends: int
    seed: int
    out: str
    resume: bool
    overwrite: bool
    address: str
    workers: int | None
    threads: int
    gpus_per_worker: float | None  # 1 where it is None; on cuda alone
    device: str
    shard_timeout: float | None = None  # seconds
    insecure: bool = False
    log_level: str = "off"
    generator: Path | None = None
    student: Path | None = None
    gate: QualityGate | None = None


def generate_run(request: Request, say: Callable[[str], None]) -> Index:
    """Make the run that was asked for, or what is missing of it. `say` gets lines for a person.

    Raises:
        UserError: with the cause and the cure; what was published until then stays valid.
    """
    if request.resume and request.overwrite:
        raise UsageError("--resume and --overwrite exclude each other: choose one")
    refuse_rays_options(request)
    checkpoint = read_checkpoint(request.teacher)
    teacher = parse_checkpoint(checkpoint, str(request.teacher), request.trusted_architecture)
    plan = plan_for(request, teacher)
    check_forward(teacher, f"name another --teacher than {request.teacher}, or {IMPORT_AGAIN}")
    methods.find(request.method).check(teacher, request.settings)
    generator, student = generator_and_student(request, teacher)
    refuse_useless_code(request, teacher, student)
    store = open_store(request.out)
    refuse_existing(store, request.resume or request.overwrite)
    configure(request.log_level, f"{request.method}-{teacher.digest[:12] if teacher.digest else ''}-{request.seed}")
    with executor(request, say) as (execute, device, where), locked(store, say) as lock:
        card = card_for(request, teacher, plan, device)
        index = open_run(store, card, request.resume, request.overwrite)
        if index.complete:
            say(f"{store} is complete already: {counted(len(index.entries), 'shard')}, {index.samples:,} samples")
            return index
        blends = f", each with {counted(plan.blends, 'blend')}," if plan.blends else ""
        say(
            f"{plan.images:,} images of {counted(len(plan.classes), 'class', 'es')}{blends} "
            f"in {counted(plan.shards, 'shard')}, on {where} ({device})"
        )
        execute = partial(execute, begun=bool(index.entries))
        recipe = Recipe(
            checkpoint,
            request.trusted_architecture,
            request.method,
            request.settings,
            device,
            request.threads,
            generator,
            student,
            request.gate,
        )
        if methods.find(request.method).uses_generator(request.settings):
            index, recipe = with_generator(store, index, recipe, execute, say, lock.check)
        return publish_with_progress(store, index, recipe, execute, lock, say)


def refuse_rays_options(request: Request) -> None:
    """Raise UsageError where an option for Ray's workers was given, and there is no Ray."""
    given = {
        "--workers": request.workers is not None,
        "--gpus-per-worker": request.gpus_per_worker is not None,
        "--shard-timeout": request.shard_timeout is not None,
        "--insecure": request.insecure,
    }
    for name in given:
        if given[name] and request.address == "none":
            raise UsageError(f"{name} has no effect with --address none, which uses no Ray: leave it out")


def refuse_useless_code(request: Request, teacher: Classifier, student: bytes | None) -> None:
    """Raise UsageError where --arch was given, and no checkpoint is of code of the user's own."""
    cards = [teacher.card, *([parse_card(student, str(request.student))] if student else [])]
    if request.trusted_architecture and not any(":" in card.architecture for card in cards):
        raise UsageError(
            f"--arch has no effect on {request.teacher}, whose architecture is {teacher.card.architecture}: leave it out"
        )


def publish_with_progress(
    store: Store, index: Index, recipe: Recipe, execute: Executor, lock: Lock, say: Callable[[str], None]
) -> Index:
    progress = Progress(index.card.plan.samples, done=index.samples)
    started = time.monotonic()
    try:
        whole = publish(store, index, recipe, execute, progress.advance, check=lock.check)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted: the shards published in {store} are valid; go on with the same command and --resume"
        ) from None
    finally:
        progress.close()
    say(
        f"{store} is complete: {counted(len(whole.entries), 'shard')}, {whole.samples:,} samples, "
        f"{format_seconds(time.monotonic() - started)}"
    )
    return whole


def generator_and_student(request: Request, teacher: Classifier) -> tuple[bytes | None, bytes | None]:
    """The checkpoints that were named, looked into here rather than on the workers.

    Raises:
        UserError: one of them has no effect, is none, or belongs to another teacher.
    """
    uses = methods.find(request.method).uses_generator(request.settings)
    for name, path in (("--generator", request.generator), ("--student", request.student)):
        if path is not None and not uses:
            raise UsageError(f"{name} has no effect on --method {request.method} with these settings: leave it out")
    student = read_checkpoint(request.student) if request.student else None
    if student is not None:
        model = parse_checkpoint(student, str(request.student), request.trusted_architecture)
        shapes = [(card.input_shape, card.num_classes) for card in (model.card, teacher.card)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{request.student} takes other images or classes than the teacher: name a student of it")
        check_forward(model, f"name another --student than {request.student}")
    if request.generator is None:
        return None, student
    try:
        generator = request.generator.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the generator {request.generator}: {error.strerror or error}") from error
    digest = hashlib.sha256(student).hexdigest() if student else None
    read_generator(generator, str(request.generator), teacher.digest, teacher.card, digest, request.classes)
    return generator, student


def plan_for(request: Request, teacher: Classifier) -> Plan:
    num_classes = teacher.card.num_classes
    classes = request.classes if request.classes is not None else tuple(range(num_classes))
    check_classes(classes, num_classes, "class")
    if teacher.card.input_shape[0] not in PIXEL_MODES:
        raise UserError(
            f"shards hold grey or colour PNGs, but the teacher takes {teacher.card.input_shape[0]} channels"
        )
    try:
        plan = Plan(
            classes=classes,
            per_class=request.per_class,
            shard_size=request.shard_size,
            blends=request.blends,
            seed=request.seed,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    check_shard_size(plan, teacher.card)
    return plan


def check_shard_size(plan: Plan, card: ModelCard) -> None:
    """Raise UsageError where a shard may become larger than readers take: it could be neither read nor resumed."""
    image = largest_size(1 + plan.blends, card.input_shape, card.num_classes)  # with its blends
    fitting = LARGEST_SHARD // image
    if min(plan.shard_size, plan.images) > fitting:
        cure = f"give --shard-size {fitting} or less" if fitting else "give fewer --blends"
        raise UsageError(
            f"a shard of {plan.shard_size} images with their blends may take {plan.shard_size * image:,} bytes, and "
            f"{LARGEST_SHARD:,} is the most that readers take: {cure}"
        )


def card_for(request: Request, teacher: Classifier, plan: Plan, device: str) -> RunCard:
    where = f"{device}, {request.threads} threads" if device == "cpu" else device
    return run_card(teacher, request.method, request.settings, request.gate, plan, where)


def run_card(
    teacher: Classifier, method: str, settings: Any, gate: QualityGate | None, plan: Plan, device: str
) -> RunCard:
    """`device` with the threads, where they matter to the bytes."""
    assert teacher.digest is not None
    return RunCard(
        teacher_sha256=teacher.digest,
        architecture=teacher.card.architecture,
        width=teacher.card.width,
        image_shape=teacher.card.input_shape,
        class_names=teacher.card.class_names,
        mean=teacher.card.mean,
        std=teacher.card.std,
        method=method,
        settings=dataclasses.asdict(settings) | ({"quality_gate": dataclasses.asdict(gate)} if gate else {}),
        plan=plan,
        device=device,
        versions=package_versions(),
    )


@contextmanager
def executor(request: Request, say: Callable[[str], None]) -> Iterator[tuple[Executor, str, str]]:
    """The executor that the address names, the device its workers use, and words for where that is."""
    if request.address == "none":
        yield in_process, local_device(request.device), "this process"
        return
    try:
        from synth.executors import ray as cluster
    except ImportError:
        raise UserError(
            "Ray is not installed: install it with pip install '.[cluster]', or make the shards without it by --address none"
        ) from None
    cpu_workers = cluster.Workers(count=request.workers, cpus=request.threads)
    with cluster.connected(request.address, cpu_workers, request.insecure) as where:
        device = request.device
        if device == "auto":
            cluster.wait_for_a_node(cpu_workers, say)  # the head alone may have no GPU where the workers have
            device = "cuda" if cluster.cluster_has_gpu() else "cpu"
        gpus = (request.gpus_per_worker or 1.0) if device == "cuda" else 0.0
        workers = dataclasses.replace(cpu_workers, gpus=gpus)
        yield cluster.on_ray(workers, request.shard_timeout, say), device, where
