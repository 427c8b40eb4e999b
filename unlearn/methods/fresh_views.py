"""Fresh views of stored images, which the teacher labels while the student learns: other ones in every epoch.

They are drawn as the stored views are (`synth.shards.views`), except that some of them mix no other image in.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from synth.checkpoint.answers import features_of
from synth.checkpoint.augment import shift_and_flip
from synth.checkpoint.batch_norm import by_batch_statistics
from synth.checkpoint.classifier import Classifier
from synth.shards.view_recipes import PARTNER, SHARE, WHOLE
from synth.shards.views import compose, draw_views
from unlearn.methods.method import StuckError
from unlearn.samples.filters import Filter, View
from unlearn.samples.near_points import NearPoints

EMPTY_BATCHES = 100  # in a row of which the filters may leave fewer than two views
ALONE: AbstractContextManager[None] = nullcontext()


class NoViewsError(StuckError):
    """The filters leave fewer than two views of a batch. Another batch may do."""


def fresh_views(images: Tensor, unmixed: float, crop: float, shift: int, flip: bool, rng: torch.Generator) -> Tensor:
    """One view of each image of a batch, uint8 (B, C, H, W). Partners come from the same batch.

    Args:
        images: uint8 (B, C, H, W).
        unmixed: the share of the views that mix no other image in.
        crop: the smallest share of the area that a view shows; 1 crops nothing.
        shift: pixels of a further shift, beside that of the views.
        flip: mirror half of the views.
    """
    height, width = images.shape[2:]
    recipes = draw_views(len(images), 1, 0, (height, width), crop, flip, rng)[:, 0]
    recipes[torch.rand(len(images), generator=rng) < unmixed, SHARE] = WHOLE
    views = compose(images, images[recipes[:, PARTNER].long().to(images.device)], recipes)
    return shift_and_flip(views, shift, False, rng)


@torch.no_grad()
def answered(
    x_unit: Tensor,
    teacher: Classifier,
    batch_statistics: bool,
    filters: Sequence[Filter],
    points: NearPoints | None = None,
    around: AbstractContextManager[object] = ALONE,
    noise: bool = False,
) -> tuple[Tensor, Tensor]:
    """The teacher's logits (N, K) on the views (N, C, H, W), and which views pass the filters and are near no point,
    (N,).

    The filters see the teacher's answers.

    Args:
        batch_statistics: the teacher normalises by the statistics of this batch, not by those of its training.
        around: is entered before the teacher answers, and left after it is as it was.
        noise: whether it answers with noise in its features. These, and those by the batch's statistics, are not
            compared with the points'; the teacher then computes others for that.

    Raises:
        NoViewsError: fewer than two views pass.
    """
    compared = points is not None and points.teacher is teacher and not (noise or batch_statistics)
    seen = features_of(teacher) if compared else nullcontext(list[Tensor]())
    by_batch = by_batch_statistics(teacher) if batch_statistics else nullcontext()
    with around, by_batch, seen as features:
        logits = teacher(x_unit).float()
    kept = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    shown = logits.cpu() if logits.device.type == "mps" else logits  # the filters need float64, which MPS has not
    for accept in filters:
        kept &= accept(View(shown, torch.empty(0))).to(kept.device)
    if points is not None:
        kept &= ~points.near_in_batch(x_unit, count=True, features=next(iter(features), None)).to(kept.device)
    if kept.sum() < 2:
        raise NoViewsError(
            f"the filters drop all fresh views of {EMPTY_BATCHES} batches in a row: loosen --gate or --entropy, raise "
            "--batch-size, or leave out --teacher"
        )
    return logits, kept
