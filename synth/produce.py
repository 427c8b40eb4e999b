"""One shard job: labels to images by a synthesis method, to the teacher's logits on what was written, to tar bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synth import methods
from synth.errors import UserError
from synth.plan import ShardJob
from synth.shards import Samples, encode_shard
from synth.teacher import Classifier, parse_checkpoint, predict


@dataclass(frozen=True)
class Recipe:
    """What a worker needs beside the job. Small, but for the checkpoint's bytes."""

    checkpoint: bytes
    trusted_architecture: str | None
    method: str
    settings: Any
    device: str  # cpu, cuda or mps
    threads: int  # a worker's CPU threads; part of the recipe because the order of floating-point sums depends on it


def make_shard(job: ShardJob, recipe: Recipe) -> bytes:
    """The shard's bytes: a function of the recipe and the job alone, on one kind of device."""
    if torch.get_num_threads() != recipe.threads:
        torch.set_num_threads(recipe.threads)
    teacher = teacher_on_device(recipe.checkpoint, recipe.trusted_architecture, recipe.device)
    labels = torch.tensor(job.labels)
    generator = torch.Generator().manual_seed(job.seed)
    images = methods.find(recipe.method).synthesise(teacher, labels, recipe.settings, generator)
    return encode_shard(label_samples(teacher, images, labels, job, recipe.method))


@lru_cache(maxsize=1)
def teacher_on_device(checkpoint: bytes, trusted_architecture: str | None, device: str) -> Classifier:
    """Loaded once a worker process. (Hashing the bytes is paid once too: Python keeps a bytes object's hash.)"""
    return parse_checkpoint(checkpoint, "the teacher", trusted_architecture).to(device)


def label_samples(teacher: Classifier, images: Tensor, labels: Tensor, job: ShardJob, method: str) -> Samples:
    """The images with the teacher's logits, its confidence in the wanted class, and its entropy in nats."""
    logits = predict(teacher, images, batch_size=500)
    if not torch.isfinite(logits).all():
        raise UserError("the teacher gives NaN or infinite logits on its own synthetic images: use another checkpoint")
    log_p = logits.double().log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    confidence = log_p.gather(1, labels[:, None])[:, 0].exp()
    records = [
        {"method": method, "seed": job.seed, "confidence": round(c, 6), "entropy": round(h, 6)}
        for c, h in zip(confidence.tolist(), entropy.tolist(), strict=True)
    ]
    keys = [f"{key:09d}" for key in range(job.start, job.stop)]
    return Samples(keys, images.numpy(), labels.numpy().astype(np.int64), logits.numpy(), records)
