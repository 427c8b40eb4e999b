"""Making one shard: from labels to images by a synthesis method, to the teacher's logits, to the bytes of a tar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor

from synth import methods
from synth.basics.errors import UserError
from synth.basics.malloc import keep_freed_memory
from synth.basics.out_of_memory import by_rows, by_settings, memory_in_words
from synth.basics.phases import phase
from synth.checkpoint.arithmetic import arithmetic_note
from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.file import parse_checkpoint
from synth.checkpoint.fitting import fitting
from synth.making.gate import QualityGate
from synth.making.quality import counts_of, passed
from synth.methods.networks import ClassGenerator, generator_bytes, parse_generator
from synth.shards.blends import blend, blend_record
from synth.shards.index import GateCounts
from synth.shards.plan import ShardJob
from synth.shards.samples import Samples
from synth.shards.write import encode_shard

LABEL_BATCH = 500  # images that the teacher labels at once
PART = 4 * LABEL_BATCH  # samples encoded while the next ones are labelled


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
    gate: GateCounts | None = None  # None where the recipe has no quality gate


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
            method.synthesise(teacher, few, settings, rng, network=network_of(recipe))

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
    labels = torch.tensor(job.image_labels)
    network = network_of(recipe)
    make = methods.find(recipe.method).synthesise
    with phase("synthesis"):
        images, notes = passed(
            teacher, labels, lambda wanted: make(teacher, wanted, settings, rng, network=network), recipe.gate
        )
    gate = counts_of(notes) if recipe.gate else None
    conditions: dict[str, Any] = {} if settings == recipe.settings else {"batch_size": settings.batch_size}
    conditions |= arithmetic_note(settings, teacher)
    notes = [note | conditions for note in notes]
    return JobResult(encode_shard(labelled_parts(teacher, images, job, recipe.method, rng, notes)), gate)


@lru_cache(maxsize=1)
def teacher_on_device(checkpoint: bytes, trusted_architecture: str | None, device: str) -> Classifier:
    """The teacher, loaded once per worker process.

    On Ray each task gets its own copy of the recipe, so the cache hashes and compares the checkpoint for every shard:
    about 0.2 s per 100 MB.
    """
    return parse_checkpoint(checkpoint, "the teacher", trusted_architecture).to(device)


def network_of(recipe: Recipe) -> ClassGenerator | None:
    return generator_on_device(recipe.generator, recipe.device) if recipe.generator else None


def student_on_device(recipe: Recipe) -> Classifier | None:
    if recipe.student is None:
        return None
    return parse_checkpoint(recipe.student, "the student", recipe.trusted_architecture).to(recipe.device)


@lru_cache(maxsize=1)
def generator_on_device(checkpoint: bytes, device: str) -> ClassGenerator:
    return parse_generator(checkpoint, "the generator").to(device)


def labelled_parts(
    teacher: Classifier,
    images: Tensor,
    job: ShardJob,
    method: str,
    rng: torch.Generator,
    notes: list[dict[str, Any]] | None = None,
    part: int = PART,
) -> Iterator[Samples]:
    """The images and their blends, with the teacher's logits, its confidence in the label, and its entropy in nats.

    Args:
        images: uint8 (N, C, H, W).
        notes: added to the json of the images, one per image; blends do not repeat them.
        part: samples per part. A multiple of LABEL_BATCH, so that the content does not depend on it.

    Raises UserError if the teacher gives logits that are not finite.
    """
    pixels, partners, shares = blend(images, job.blends, rng)
    keys, labels = job.keys, torch.tensor(job.labels)
    records = [{"method": method, "seed": job.seed} for _ in keys]
    for record, note in zip(records[:: 1 + job.blends], notes or [], strict=False):
        record |= note
    rows = zip(records, partners.tolist(), shares.tolist(), strict=True)
    for record, partner, share in rows:
        if share < 1:
            record |= blend_record(job, partner, job.classes[(job.start + partner) % len(job.classes)], share)
    for start in range(0, len(keys), part):
        mine = slice(start, start + part)
        with phase("label"):
            logits = by_rows(partial(predict, teacher), LABEL_BATCH, pixels[mine])
        if not torch.isfinite(logits).all():
            raise UserError(
                "the teacher gives NaN or infinite logits on its own synthetic images: use another checkpoint"
            )
        log_p = logits.double().log_softmax(1)
        entropy = -(log_p.exp() * log_p).sum(1)
        confidence = log_p.gather(1, labels[mine, None])[:, 0].exp()
        for record, c, h in zip(records[mine], confidence.tolist(), entropy.tolist(), strict=True):
            record |= {"confidence": round(c, 6), "entropy": round(h, 6)}
        yield Samples(keys[mine], pixels[mine].numpy(), labels[mine].numpy(), logits.numpy(), records[mine])
