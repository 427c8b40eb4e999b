"""Making one shard: from labels to images by a synthesis method, to the teacher's logits, to the bytes of a tar."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle, islice
from typing import Any

import torch

from synth import methods
from synth.basics.malloc import keep_freed_memory
from synth.basics.out_of_memory import by_settings, memory_in_words
from synth.basics.phases import phase
from synth.basics.ticks import stage
from synth.checkpoint.arithmetic import arithmetic_note
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import parse_checkpoint
from synth.checkpoint.fitting import fitting
from synth.making.copies import recognised_in_some
from synth.making.gate import QualityGate
from synth.making.label import as_read, labelled_parts
from synth.making.quality import FEWEST_PHOTOS, counts_of, passed
from synth.methods.networks import ClassGenerator, generator_bytes, parse_generator
from synth.methods.presets import Form, form_of
from synth.shards.index import GateCounts
from synth.shards.plan import ShardJob
from synth.shards.write import encode_shard


@dataclass(frozen=True)
class Recipe:
    """Everything that a worker needs beside the job."""

    checkpoint: bytes
    trusted_architecture: str | None
    method: str
    settings: Any
    device: str  # cpu, cuda or mps
    threads: int  # CPU threads of a worker; they change the order of floating-point sums, and so the bytes
    generator: bytes | None = None  # the checkpoint from the preparation, or from --generator
    student: bytes | None = None  # the checkpoint that a generator is trained against
    gate: QualityGate | None = None
    workers: int | None = None  # that a run uses at most; those on one machine share its memory


@dataclass(frozen=True)
class JobResult:
    """What a job makes: the tar of a shard, or the checkpoint of the generator."""

    data: bytes
    gate: GateCounts | None = None  # what was counted on the way; None for the preparation


def make_shard(job: ShardJob, recipe: Recipe) -> JobResult:
    """Make a job's shard. The preparation job, which comes before all shards, makes the generator's checkpoint instead.

    The result is a function of the recipe and the job only, on one kind of device.

    If the device's memory does not hold a batch, the shard is made again from its seed in batches of half the size, and
    the json of its samples says so (`batch_size`), because the content then depends on the batch size. The forward
    passes of the gate and of the labels just continue in smaller batches.

    The first batch size is the largest of these that one step on a few images shows to fit (`first_settings`).

    Raises UserError if the memory does not hold the smallest batch, or what the method raises.
    """
    if recipe.device == "cuda":
        torch.backends.cudnn.deterministic = True
    keep_freed_memory()
    if torch.get_num_threads() != recipe.threads:
        torch.set_num_threads(recipe.threads)
    make = prepare if job.prepares else shard_of
    with memory_in_words():
        with phase("load"):
            teacher = teacher_on_device(recipe.checkpoint, recipe.trusted_architecture, recipe.device)
            settings = first_settings(teacher, job, recipe)
        return by_settings(lambda settings: make(teacher, settings, job, recipe), settings)


def first_settings(teacher: Classifier, job: ShardJob, recipe: Recipe) -> Any:
    """The recipe's settings, with a smaller batch where one step on a few images shows that the batch will not fit."""
    method, labels = methods.find(recipe.method), cycle(job.classes)

    def step(settings: Any, images: int) -> None:
        if job.prepares:
            method.prepare(teacher, settings, 0, student_on_device(recipe), job.classes)
        else:
            few, rng = torch.tensor(list(islice(labels, images))), torch.Generator().manual_seed(0)
            method.synthesise(teacher, few, settings, rng, **networks_of(recipe))

    if not hasattr(method, "brief"):
        return recipe.settings
    most = None if job.prepares else job.stop - job.start
    return fitting(teacher, recipe.settings, method.brief, step, most=most, key=(recipe.method, job.prepares))


def prepare(teacher: Classifier, settings: Any, job: ShardJob, recipe: Recipe) -> JobResult:
    """Train the generator for the job's classes."""
    student = student_on_device(recipe)
    with phase("preparation"):
        network = methods.find(recipe.method).prepare(teacher, settings, job.seed, student, job.classes)
    return JobResult(generator_bytes(network) if network is not None else b"")


def shard_of(teacher: Classifier, settings: Any, job: ShardJob, recipe: Recipe) -> JobResult:
    """Make the shard of the job."""
    rng = torch.Generator().manual_seed(job.seed)
    labels = torch.tensor(job.labels)
    networks = networks_of(recipe)
    make = methods.find(recipe.method).synthesise
    share = synthesis_share(settings, job.views)
    with phase("synthesis"), stage(0, share):
        images, notes = passed(
            teacher,
            labels,
            lambda wanted: make(teacher, wanted, settings, rng, **networks),
            recipe.gate,
            FEWEST_PHOTOS if form_of(teacher.card.input_shape) is Form.PHOTO else None,
            read=lambda images: as_read(images, job.image_format)[1],
        )
    files, images = as_read(images, job.image_format)
    counts = counts_of(notes) if recipe.gate else GateCounts()
    if teacher.card.target is None:  # a shifted or mirrored image may have another target
        with phase("recognition"):
            votes = recognised_in_some(teacher, images, labels, job.seed)
        counts = replace(counts, recognised=int(votes.sum()), judged=votes.numel())
    conditions: dict[str, Any] = {} if settings == recipe.settings else {"batch_size": settings.batch_size}
    conditions |= arithmetic_note(settings, teacher)
    notes = [note | conditions for note in notes]
    with stage(share, 1):
        parts = labelled_parts(teacher, images, job, recipe.method, mirrors(settings), rng, notes, files)
        return JobResult(encode_shard(parts, job.image_format, teacher.card.target), counts)


def synthesis_share(settings: Any, views: int) -> float:
    """About which share of a shard's time the images take, counted in forward passes of the teacher.

    A step is a forward and a backward pass, which is as long as two. Then the teacher labels the image and its views,
    and encoding them takes about another pass.
    """
    synthesis = 1 + 3 * getattr(settings, "steps", 0)
    return synthesis / (synthesis + 1 + views + 1)


def mirrors(settings: Any) -> bool:
    """Whether the method's images may be mirrored."""
    return getattr(settings, "flip", False)


@lru_cache(maxsize=1)
def teacher_on_device(checkpoint: bytes, trusted_architecture: str | None, device: str) -> Classifier:
    """The teacher, loaded once per worker process.

    On Ray each task gets its own copy of the recipe, so the cache hashes and compares the checkpoint for every shard:
    about 0.2 s per 100 MB.
    """
    return parse_checkpoint(checkpoint, "the teacher", trusted_architecture).to(device)


def networks_of(recipe: Recipe) -> dict[str, Any]:
    """What a method's `synthesise` takes beside the teacher: the generator, and the student if it can use one."""
    networks: dict[str, Any] = {"network": None}
    if recipe.generator:
        networks["network"] = generator_on_device(recipe.generator, recipe.device)
    if hasattr(methods.find(recipe.method), "uses_student"):
        networks["student"] = student_on_device(recipe)
    return networks


def student_on_device(recipe: Recipe) -> Classifier | None:
    if recipe.student is None:
        return None
    return loaded_student(recipe.student, recipe.trusted_architecture, recipe.device)


@lru_cache(maxsize=1)
def loaded_student(checkpoint: bytes, trusted_architecture: str | None, device: str) -> Classifier:
    """The student, loaded once per worker process."""
    return parse_checkpoint(checkpoint, "the student", trusted_architecture).to(device)


@lru_cache(maxsize=1)
def generator_on_device(checkpoint: bytes, device: str) -> ClassGenerator:
    return parse_generator(checkpoint, "the generator").to(device)
