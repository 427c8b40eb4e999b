"""What a worker says of the shard in work: how much of it is done, and now and then some of its images.

A thousand workers may talk to one driver, so each of them says little and seldom.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from synth.basics.grids import Row, Text, draw_rows
from synth.basics.ticks import Show
from synth.checkpoint.file import parse_card
from synth.making.make import Recipe
from synth.shards.plan import ShardJob

SHOWN = 24  # images in a picture
ROWS = 12  # of different classes
SIDE = 96  # pixels of an image in a picture at most
MARGIN = 120  # pixels, for the classes' names
LARGEST_PICTURE = 100_000  # bytes
FIRST_PICTURE, PICTURE_SECONDS = 10.0, 60.0  # after the job's begin, and between two of them


@dataclass(frozen=True)
class Beat:
    """How much of a job is done, from 0 to 1. `picture` is a JPEG of some of its images, if there is a new one."""

    number: int  # of the shard, as in ShardJob
    share: float
    picture: bytes | None = None


class Pulse:
    """Turns the ticks of one job into beats, the first of them when the job begins. Give it to
    `synth.basics.ticks.listening`.

    The share never falls, also if the work starts again with smaller batches. Only the run's first shard gives
    pictures: once it is published, its images can be looked at.

    Args:
        send: gets the beats.
        seconds: the least time between two of them.
    """

    def __init__(
        self,
        job: ShardJob,
        recipe: Recipe,
        send: Callable[[Beat], None],
        seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job, self.recipe, self.send, self.seconds, self.now = job, recipe, send, seconds, now
        self.share = 0.0
        self.due = now()
        self.picture_due = self.due + FIRST_PICTURE
        send(Beat(job.number, 0.0))

    def __call__(self, share: float, show: Show | None) -> None:
        self.share = max(self.share, share)
        now = self.now()
        if now < self.due:
            return
        self.due = now + self.seconds
        picture = None
        if show is not None and self.job.number == 0 and now >= self.picture_due:
            images, labels = show()
            picture = picture_of(images, labels, parse_card(self.recipe.checkpoint, "the teacher").class_names)
            self.picture_due = self.now() + PICTURE_SECONDS
        self.send(Beat(self.job.number, self.share, picture))


def picture_of(images: Tensor, labels: Tensor, class_names: Sequence[str]) -> bytes:
    """A JPEG of the first images, uint8 (N, C, H, W), with a row for each of their classes; at most LARGEST_PICTURE."""
    images, labels = images[:SHOWN].cpu(), labels[:SHOWN].cpu()
    height, width = images.shape[2:]
    if max(height, width) > SIDE:
        height, width = (max(1, side * SIDE // max(images.shape[2:])) for side in (height, width))
        images = F.interpolate(images.float(), (height, width), mode="area").round().byte()
    by_class: dict[int, list[Tensor]] = {}
    for image, label in zip(images, labels.tolist(), strict=True):
        if label in by_class or len(by_class) < ROWS:
            by_class.setdefault(label, []).append(image)
    rows = [
        Row([image.numpy() for image in row], [Text(4, 4, class_names[label])])
        for label, row in sorted(by_class.items())
    ]
    scale = max(1, 48 // height)
    grid = draw_rows(rows, max(map(len, by_class.values())), height * scale, width * scale, MARGIN)
    for quality in (85, 60, 30):
        buffer = io.BytesIO()
        grid.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= LARGEST_PICTURE:
            break
    return buffer.getvalue()
