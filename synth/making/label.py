"""The teacher's answers on a shard's images and on their views."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from synth.basics.errors import UserError
from synth.basics.out_of_memory import by_rows
from synth.basics.phases import phase
from synth.basics.ticks import tick
from synth.checkpoint.arithmetic import forward_only
from synth.checkpoint.classifier import Classifier, predict
from synth.shards.images import decode_file, encode_images
from synth.shards.plan import PNG, ShardJob
from synth.shards.samples import Samples
from synth.shards.view_recipes import PARTNER
from synth.shards.views import compose, draw_views

LABEL_BATCH = 500  # images and views that the teacher labels at once
LARGEST_LOGIT = float(np.finfo(np.float16).max)  # 65,504


def labelled_parts(
    teacher: Classifier,
    images: Tensor,
    job: ShardJob,
    method: str,
    flip: bool,
    rng: torch.Generator,
    notes: list[dict[str, Any]] | None = None,
    files: list[bytes] | None = None,
) -> Iterator[tuple[Samples, Iterable[bytes]]]:
    """The samples of the images, part by part, each with the files of its images.

    A sample has the teacher's logits on the image and its views, its confidence in the label, and its entropy in nats.
    The views of one part are in memory at once, about LABEL_BATCH images.

    Args:
        images: uint8 (N, C, H, W), as a reader decodes them.
        flip: mirror half of the views.
        notes: added to the json of the images, one per image.
        files: of the images, which are as a reader decodes them; None to encode PNG files.

    Raises UserError if the teacher gives logits that are not finite.
    """
    views = draw_views(len(images), job.views, job.start, (images.shape[2], images.shape[3]), job.view_crop, flip, rng)
    device = next(teacher.parameters()).device
    shown = images.to(device)
    labels = torch.tensor(job.labels)
    keys = job.keys
    records = [{"method": method, "seed": job.seed} | note for note in notes or [{}] * len(images)]
    each = max(1, LABEL_BATCH // (1 + job.views))
    with forward_only(teacher):
        for start in range(0, len(images), each):
            mine = slice(start, start + each)
            with phase("views"):
                pixels = with_views(shown, mine, views[mine], job.start)
            with phase("label"):
                answers = by_rows(partial(predict, teacher), LABEL_BATCH, pixels.flatten(0, 1))
            logits = answers.unflatten(0, pixels.shape[:2])
            if not torch.isfinite(logits).all():
                raise UserError(
                    "the teacher gives NaN or infinite logits on its own synthetic images: use another checkpoint"
                )
            note_certainty(records[mine], logits[:, 0], labels[mine])
            samples = Samples(
                keys=keys[mine],
                images=images[mine].numpy(),
                labels=labels[mine].numpy(),
                logits=to_float16(logits).numpy(),
                views=views[mine].numpy(),
                records=records[mine],
            )
            tick(min(start + each, len(images)), len(images))
            yield samples, encode_images(samples.images, PNG) if files is None else files[mine]


def note_certainty(records: list[dict[str, Any]], logits: Tensor, labels: Tensor) -> None:
    """Add the teacher's confidence in the labels (N,) and the entropy of its answers (N, K) to the records."""
    log_p = logits.double().log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    confidence = log_p.gather(1, labels[:, None])[:, 0].exp()
    for record, c, h in zip(records, confidence.tolist(), entropy.tolist(), strict=True):
        record |= {"confidence": round(c, 6), "entropy": round(h, 6)}


def as_read(images: Tensor, image_format: str) -> tuple[list[bytes] | None, Tensor]:
    """The files of the images and their pixels as a reader decodes them, which a JPEG changes.

    PNG files are not made yet, because they keep every pixel.
    """
    if image_format == PNG:
        return None, images
    with phase("encode"):
        files = list(encode_images(images.numpy(), image_format))
        shape = (images.shape[1], images.shape[2], images.shape[3])
        return files, torch.from_numpy(np.stack([decode_file(file, shape, image_format) for file in files]))


def with_views(images: Tensor, mine: slice, views: Tensor, first: int) -> Tensor:
    """Each of these images with its views, uint8 (n, 1 + V, C, H, W).

    Args:
        images: all images of the shard, uint8 (N, C, H, W).
        views: the recipes of the images `mine`, int32 (n, V, COLUMNS).
        first: the number of the shard's first image.
    """
    own, count = images[mine], views.shape[1]
    recipes = views.flatten(0, 1).to(images.device)
    partners = images[recipes[:, PARTNER].long() - first]
    composed = compose(own.repeat_interleave(count, dim=0), partners, recipes)
    return torch.cat([own[:, None], composed.unflatten(0, (len(own), count))], dim=1)


def to_float16(logits: Tensor) -> Tensor:
    """Logits (..., K) as float16. The softmax of a row that would overflow is kept: its largest logit becomes 0.

    There, logits below -65,504 become -65,504, whose probability is 0 as well.
    """
    overflow = logits.abs().amax(-1, keepdim=True) > LARGEST_LOGIT
    lowered = (logits - logits.amax(-1, keepdim=True)).clamp(min=-LARGEST_LOGIT)
    return torch.where(overflow, lowered, logits).half()
