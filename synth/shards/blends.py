"""Blends: samples that mix two images of a shard."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from synth.checkpoint.augment import draw_corners, shifted
from synth.shards.plan import ShardJob

BLEND_ROWS = 500  # blends computed at once; this takes about twenty times their bytes
BLEND_SHIFT = 0.1  # share of the image's side: 3 pixels at 28 or 32


def blend_record(job: ShardJob, partner: int, partner_class: int, share: float) -> dict[str, Any]:
    """What a blend's json says beside that of an image. `partner` is a row of the shard's images."""
    return {"share": round(share, 6), "partner": job.start + partner, "partner_class": partner_class}


def blend(
    images: Tensor, blends: int, rng: torch.Generator, at_once: int = BLEND_ROWS
) -> tuple[Tensor, Tensor, Tensor]:
    """Each image, followed by `blends` blends of it with other images (mixup, Zhang et al. 2018). Both images are
    shifted at random.

    A student that learns the teacher's answers around and between the images becomes far better than one that learns
    them at the images only. Augmenting the images later would keep labels that are no longer the teacher's; here the
    teacher is available, and a true label costs one forward pass. The image itself has the larger share, uniform in
    [0.5, 1). All random numbers are drawn first, so that they do not depend on `at_once`.

    Args:
        images: uint8 (N, C, H, W).
        at_once: blends computed at once.

    Returns:
        uint8 images (N * (1 + blends), C, H, W); for each the row of its partner, and its own share (1 for the images).
    """
    count = len(images)
    shares = torch.ones(count, 1 + blends)
    shares[:, 1:] = 0.5 + 0.5 * torch.rand(count, blends, generator=rng)
    partners = torch.arange(count)[:, None].repeat(1, 1 + blends)
    if count > 1:
        partners[:, 1:] += torch.randint(1, count, (count, blends), generator=rng)
        partners %= count
    shares, partners = shares.flatten(), partners.flatten()
    blended = images.repeat_interleave(1 + blends, dim=0)
    rows = (shares < 1).nonzero()[:, 0]
    shift = round(BLEND_SHIFT * images.shape[-1])
    own_corners, other_corners = (draw_corners(len(rows), shift, rng) for _ in range(2))
    for start in range(0, len(rows), at_once):
        mine = slice(start, start + at_once)
        row = rows[mine]
        own = shifted(blended[row].float(), shift, own_corners[mine])
        other = shifted(images[partners[row]].float(), shift, other_corners[mine])
        weight = shares[row, None, None, None]
        blended[row] = (weight * own + (1 - weight) * other).round().to(torch.uint8)
    return blended, partners, shares
