"""What `synth generate` was asked for, and every check that needs neither the store nor the machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth import methods
from synth.basics.byte_sizes import Bytes
from synth.basics.disk import sha256_of
from synth.basics.errors import UsageError, UserError
from synth.basics.regular_files import read_regular
from synth.basics.versions import package_versions
from synth.checkpoint.building import refuse_useless_code
from synth.checkpoint.card import ModelCard
from synth.checkpoint.class_choice import Classes
from synth.checkpoint.classifier import Classifier, check_forward
from synth.checkpoint.file import IMPORT_AGAIN, parse_card, parse_checkpoint, read_checkpoint, student_file
from synth.checkpoint.range_choice import choose
from synth.executors.choose import Machines, refuse_options_without_ray
from synth.making.gate import QualityGate
from synth.making.make import Recipe
from synth.methods.networks import LARGEST_GENERATOR, read_generator
from synth.methods.presets import SIDES, TUNED, Form, form_of, presets_in
from synth.run.sizes import USUAL_SHARD, images_per_shard, most_images
from synth.shards.images import usual_format
from synth.shards.index import RunCard
from synth.shards.plan import Plan
from synth.shards.samples import LARGEST_SHARD, PIXEL_MODES, Layout


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `synth generate` was asked for; the fields are its options."""

    teacher: Path
    trusted_architecture: str | None
    method: str
    settings: Any  # for small images
    classes: Classes | None  # None or empty means all
    per_class: int
    shard_size: int | Bytes | None  # images, or bytes; None means about 100 MB (`synth.run.sizes`)
    views: int
    view_crop: float
    image_format: str | None  # None means the usual one of this size
    seed: int
    out: str
    resume: bool
    overwrite: bool
    address: str
    workers: int | None
    threads: int
    gpus_per_worker: float | None  # None means 1; used on cuda only
    device: str
    shard_timeout: float | None = None  # seconds
    insecure: bool = False
    publish: str = "auto"
    log_level: str = "off"
    generator: Path | None = None
    student: Path | None = None
    gate: QualityGate | None = None
    preset: str = TUNED  # that the settings started from
    # For teachers of other images than small ones. None if the preset has no such form; a form that is not there has
    # the settings above.
    forms: Mapping[Form, Any | None] = field(default_factory=dict)
    refused: Mapping[Form, UsageError] = field(default_factory=dict)  # why a form does not allow what was asked for

    @property
    def machines(self) -> Machines:
        return Machines(
            address=self.address,
            workers=self.workers,
            threads=self.threads,
            gpus_per_worker=self.gpus_per_worker,
            device=self.device,
            shard_timeout=self.shard_timeout,
            insecure=self.insecure,
            publish=self.publish,
        )


@dataclass(frozen=True, kw_only=True)
class CheckedRequest:
    """A request that can be carried out, with the files that it names. Only the device of the workers is still open."""

    request: Request
    teacher: Classifier
    settings: Any  # for the images that the teacher takes
    plan: Plan
    checkpoint: bytes  # the teacher's
    generator: bytes | None
    student: bytes | None

    @property
    def layout(self) -> Layout:
        """What every sample of the run will have in common."""
        return layout_of(self.plan, self.teacher.card)

    @property
    def title(self) -> str:
        """The run's name in log lines."""
        return f"{self.request.method}-{(self.teacher.digest or '')[:12]}-{self.request.seed}"

    @property
    def instead(self) -> str:
        """What the method does instead for a teacher without batch norm; empty if there is nothing to say."""
        method = methods.find(self.request.method)
        return method.instead(self.teacher, self.settings) if hasattr(method, "instead") else ""

    def recipe(self, device: str) -> Recipe:
        """What the workers need, on this device."""
        asked = self.request
        return Recipe(
            checkpoint=self.checkpoint,
            trusted_architecture=asked.trusted_architecture,
            method=asked.method,
            settings=self.settings,
            device=device,
            threads=asked.threads,
            generator=self.generator,
            student=self.student,
            gate=asked.gate,
        )


def check_request(request: Request) -> CheckedRequest:
    """Read the files that the request names, and check that everything fits together.

    Raises:
        UserError: with the cause and the cure.
    """
    if request.resume and request.overwrite:
        raise UsageError("--resume and --overwrite exclude each other: choose one")
    refuse_options_without_ray(request.machines)
    checkpoint = read_checkpoint(request.teacher, request.trusted_architecture)
    teacher = parse_checkpoint(checkpoint, str(request.teacher), request.trusted_architecture)
    plan = plan_for(request, teacher.card)
    refuse_gate_of_classes(request, teacher.card)
    check_forward(teacher, f"name another --teacher than {request.teacher}, or {IMPORT_AGAIN}")
    settings = settings_for(request, teacher.card)
    methods.find(request.method).check(teacher, settings)
    refuse_files_without_effect(request, settings)
    student = checked_student(request, teacher)
    generator = checked_generator(request, teacher, student, plan.classes if request.classes else None)
    cards = [teacher.card, *([parse_card(student, str(request.student))] if student else [])]
    why = f" on {request.teacher}, whose architecture is {teacher.card.architecture}"
    refuse_useless_code(request.trusted_architecture, (card.architecture for card in cards), why)
    return CheckedRequest(
        request=request,
        teacher=teacher,
        settings=settings,
        plan=plan,
        checkpoint=checkpoint,
        generator=generator,
        student=student,
    )


def refuse_gate_of_classes(request: Request, card: ModelCard) -> None:
    """Raise UsageError if the quality gate asks a regressor for a class on changed images, whose target differs."""
    gate = request.gate
    if card.target is not None and gate is not None and (gate.copies or gate.agreement):
        raise UsageError(
            "copies and agreement of --quality-gate are for classifiers, because a changed image may have another "
            "target: use confidence or entropy"
        )


def plan_for(request: Request, card: ModelCard) -> Plan:
    """The plan of the run. Raises UserError if the teacher or the readers of shards do not allow it."""
    classes = choose(request.classes or range(card.num_classes), card)
    if card.input_shape[0] not in PIXEL_MODES:
        raise UserError(f"shards hold grey or colour PNGs, but the teacher takes {card.input_shape[0]} channels")
    if request.view_crop < 1 and not request.views:
        raise UsageError("--view-crop has no effect without views: give --views 1 or more, or leave it out")
    try:
        plan = Plan(
            classes=classes,
            per_class=request.per_class,
            shard_size=request.shard_size if isinstance(request.shard_size, int) else USUAL_SHARD,
            views=request.views,
            view_crop=request.view_crop,
            image_format=request.image_format or usual_format(card.input_shape),
            seed=request.seed,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    layout = layout_of(plan, card)
    if not isinstance(request.shard_size, int):
        asked = request.shard_size.count if request.shard_size else None
        batch = getattr(settings_for(request, card), "batch_size", 1)
        plan = dataclasses.replace(plan, shard_size=images_per_shard(layout, plan.images, batch, asked))
    check_shard_size(plan, layout)
    return plan


def layout_of(plan: Plan, card: ModelCard) -> Layout:
    return Layout(card.input_shape, card.num_classes, plan.views, plan.image_format, card.target)


def check_shard_size(plan: Plan, layout: Layout) -> None:
    """Raise UsageError if a shard may become larger than readers accept. It could be neither read nor resumed."""
    fitting = most_images(layout)
    if min(plan.shard_size, plan.images) > fitting:
        cure = f"give --shard-size {fitting} or less" if fitting else "give fewer --views"
        raise UsageError(
            f"a shard of {plan.shard_size} images may take {layout.largest_shard(plan.shard_size):,} bytes, but "
            f"readers accept at most {LARGEST_SHARD:,}: {cure}"
        )


def settings_for(request: Request, card: ModelCard) -> Any:
    """The settings for the images that the teacher takes. Raises UsageError if the preset has no form for them, or the
    form does not allow what was asked for.
    """
    form = form_of(card.input_shape)
    if form in request.refused:
        raise request.refused[form]
    settings = request.forms.get(form, request.settings)
    if settings is None:
        others = ", ".join(presets_in(methods.find(request.method), form))
        raise UsageError(
            f"--preset {request.preset} of --method {request.method} makes noise of {form.value}, which this teacher "
            f"takes ({SIDES[form]}): choose --preset {others}"
        )
    return settings


def refuse_files_without_effect(request: Request, settings: Any) -> None:
    """Raise UsageError if --generator or --student was given to a method that does not use it."""
    method = methods.find(request.method)
    generator = method.uses_generator(settings)
    student = method.uses_student(settings) if hasattr(method, "uses_student") else generator
    for name, path, used in (("--generator", request.generator, generator), ("--student", request.student, student)):
        if path is not None and not used:
            raise UsageError(f"{name} has no effect on --method {request.method} with these settings: leave it out")


def checked_student(request: Request, teacher: Classifier) -> bytes | None:
    """The student's checkpoint, if one was named.

    Raises UserError if it has other inputs or classes than the teacher.
    """
    if request.student is None:
        return None
    path = student_file(request.student)
    data = read_checkpoint(path, request.trusted_architecture)
    student = parse_checkpoint(data, str(path), request.trusted_architecture)
    if student.card.input_shape != teacher.card.input_shape or student.card.num_classes != teacher.card.num_classes:
        raise UserError(
            f"{request.student} takes other images or classes than the teacher: name a student of this teacher"
        )
    if student.card.class_names != teacher.card.class_names:
        raise UserError(
            f"{request.student} has other class names than the teacher, or another order of them: name a student of "
            "this teacher"
        )
    check_forward(student, f"name another --student than {request.student}")
    return data


def checked_generator(
    request: Request, teacher: Classifier, student: bytes | None, classes: tuple[int, ...] | None
) -> bytes | None:
    """The generator's checkpoint, if one was named. Raises UserError if it belongs to another teacher or student, or
    does not draw these classes (None means all).
    """
    if request.generator is None:
        return None
    try:
        data = read_regular(request.generator, LARGEST_GENERATOR)
    except OSError as error:
        raise UserError(f"cannot read the generator {request.generator}: {error.strerror or error}") from error
    digest = sha256_of(student) if student else None
    read_generator(data, str(request.generator), teacher.digest, teacher.card, digest, classes)
    return data


def run_card(teacher: Classifier, recipe: Recipe, plan: Plan) -> RunCard:
    """The card of a run: everything that determines its content. The threads count on the CPU only."""
    assert teacher.digest is not None
    further: dict[str, Any] = {"quality_gate": dataclasses.asdict(recipe.gate)} if recipe.gate else {}
    if recipe.student:
        further["student_sha256"] = sha256_of(recipe.student)
    return RunCard(
        teacher_sha256=teacher.digest,
        architecture=teacher.card.architecture,
        width=teacher.card.width,
        image_shape=teacher.card.input_shape,
        class_names=teacher.card.class_names,
        mean=teacher.card.mean,
        std=teacher.card.std,
        method=recipe.method,
        settings=dataclasses.asdict(recipe.settings) | further,
        wiring=teacher.card.wiring,
        target=teacher.card.target,
        plan=plan,
        device=f"cpu, {recipe.threads} threads" if recipe.device == "cpu" else recipe.device,
        versions=package_versions(),
    )
