"""One shard job: labels to images by a synthesis method, to the teacher's logits on what was written, to tar bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from synth import methods
from synth.augment import draw_corners, shifted
from synth.compute import arithmetic_note
from synth.encode import encode_shard
from synth.errors import UserError
from synth.freed_memory import keep_freed_memory
from synth.generator import ClassGenerator, generator_bytes, parse_generator
from synth.memory import by_rows, by_settings
from synth.phases import phase
from synth.plan import ShardJob
from synth.quality import passed
from synth.settings import QualityGate
from synth.shards import Samples
from synth.teacher import Classifier, parse_checkpoint, predict

LABEL_BATCH = 500  # images that the teacher labels at once
PART = 4 * LABEL_BATCH  # samples that are encoded while the next are labelled
BLEND_ROWS = 500  # blends that are computed at once, which takes some twenty times their bytes
BLEND_SHIFT = 0.1  # of the image's side: 3 pixels of 28 or 32


@dataclass(frozen=True)
class Recipe:
    """What a worker needs beside the job. Small, but for the checkpoint's bytes."""

    checkpoint: bytes
    trusted_architecture: str | None
    method: str
    settings: Any
    device: str  # cpu, cuda or mps
    threads: int  # a worker's CPU threads; part of the recipe because the order of floating-point sums depends on it
    generator: bytes | None = None  # the checkpoint that the preparation made, or that was given
    student: bytes | None = None  # the checkpoint that a generator is trained against
    gate: QualityGate | None = None


def make_shard(job: ShardJob, recipe: Recipe) -> bytes:
    """A job's bytes, a function of the recipe and the job alone on one kind of device: a shard's tar, or of the job that
    comes before all shards the generator's checkpoint.

    Where the device's memory doesn't hold a batch, the shard is made again from its seed in batches half as large, and its
    samples' json says so (`batch_size`): on such a device, content is a function of the batch size too. What no batch is
    optimised in (the gate's and the labels' forward passes) goes on in smaller batches.
    """
    if recipe.device == "cuda":
        torch.backends.cudnn.deterministic = True
    keep_freed_memory()
    if torch.get_num_threads() != recipe.threads:
        torch.set_num_threads(recipe.threads)
    with phase("load"):
        teacher = teacher_on_device(recipe.checkpoint, recipe.trusted_architecture, recipe.device)
    make = prepare if job.prepares else shard_of
    return by_settings(lambda settings: make(teacher, settings, job, recipe), recipe.settings)


def prepare(teacher: Classifier, settings: Any, job: ShardJob, recipe: Recipe) -> bytes:
    student = parse_checkpoint(recipe.student, "the student", recipe.trusted_architecture) if recipe.student else None
    student = student.to(recipe.device) if student else None
    with phase("preparation"):
        network = methods.find(recipe.method).prepare(teacher, settings, job.seed, student)
    return generator_bytes(network) if network is not None else b""


def shard_of(teacher: Classifier, settings: Any, job: ShardJob, recipe: Recipe) -> bytes:
    generator = torch.Generator().manual_seed(job.seed)
    labels = torch.tensor(job.image_labels)
    network = generator_on_device(recipe.generator, recipe.device) if recipe.generator else None
    make = methods.find(recipe.method).synthesise
    with phase("synthesis"):
        images, notes = passed(
            teacher, labels, lambda wanted: make(teacher, wanted, settings, generator, network=network), recipe.gate
        )
    conditions: dict[str, Any] = {} if settings == recipe.settings else {"batch_size": settings.batch_size}
    conditions |= arithmetic_note(settings, teacher)
    notes = [note | conditions for note in notes]
    return encode_shard(labelled_parts(teacher, images, job, recipe.method, generator, notes))


@lru_cache(maxsize=1)
def teacher_on_device(checkpoint: bytes, trusted_architecture: str | None, device: str) -> Classifier:
    """Loaded once a worker process. (Hashing the bytes is paid once too: Python keeps a bytes object's hash.)"""
    return parse_checkpoint(checkpoint, "the teacher", trusted_architecture).to(device)


@lru_cache(maxsize=1)
def generator_on_device(checkpoint: bytes, device: str) -> ClassGenerator:
    return parse_generator(checkpoint, "the generator").to(device)


def label_samples(
    teacher: Classifier,
    images: Tensor,
    job: ShardJob,
    method: str,
    generator: torch.Generator,
    notes: list[dict[str, Any]] | None = None,
) -> Samples:
    """The images and their blends, as `labelled_parts` gives them, in one part."""
    return next(labelled_parts(teacher, images, job, method, generator, notes, part=job.samples))


def labelled_parts(
    teacher: Classifier,
    images: Tensor,
    job: ShardJob,
    method: str,
    generator: torch.Generator,
    notes: list[dict[str, Any]] | None = None,
    part: int = PART,
) -> Iterator[Samples]:
    """The images and their blends, with the teacher's logits, its confidence in the label, and its entropy in nats.

    `notes` are added to the images' json, one an image; blends don't repeat them. `part` is the number of samples a part, a
    multiple of the batches that the teacher sees, so that parts of any size have the same content.
    """
    pixels, partners, shares = blend(images, job.blends, generator)
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


def blend_record(job: ShardJob, partner: int, partner_class: int, share: float) -> dict[str, Any]:
    return {"share": round(share, 6), "partner": job.start + partner, "partner_class": partner_class}


def blend(
    images: Tensor, blends: int, generator: torch.Generator, at_once: int = BLEND_ROWS
) -> tuple[Tensor, Tensor, Tensor]:
    """Each image followed by `blends` blends of it with other images, both shifted at random, as in mixup (Zhang et al. 2018).

    A student that learns the teacher's answers around and between the images comes out far better than one that learns
    them at the images alone; augmenting them later would keep labels that are no longer the teacher's. Here, where the
    teacher is at hand, a true label costs one forward pass. The image itself has the larger share, uniform in [0.5, 1).
    All that is random is drawn first, so that it doesn't depend on how many are computed at once.

    Returns:
        uint8 images (N * (1 + blends), C, H, W), the row of each one's partner, and its own share (1 for the images).
    """
    count = len(images)
    shares = torch.ones(count, 1 + blends)
    shares[:, 1:] = 0.5 + 0.5 * torch.rand(count, blends, generator=generator)
    partners = torch.arange(count)[:, None].repeat(1, 1 + blends)
    if count > 1:
        partners[:, 1:] += torch.randint(1, count, (count, blends), generator=generator)
        partners %= count
    shares, partners = shares.flatten(), partners.flatten()
    blended = images.repeat_interleave(1 + blends, dim=0)
    rows = (shares < 1).nonzero()[:, 0]
    shift = round(BLEND_SHIFT * images.shape[-1])
    own_corners, other_corners = (draw_corners(len(rows), shift, generator) for _ in range(2))
    for start in range(0, len(rows), at_once):
        mine = slice(start, start + at_once)
        row = rows[mine]
        own = shifted(blended[row].float(), shift, own_corners[mine])
        other = shifted(images[partners[row]].float(), shift, other_corners[mine])
        weight = shares[row, None, None, None]
        blended[row] = (weight * own + (1 - weight) * other).round().to(torch.uint8)
    return blended, partners, shares
