"""The pixels of views in torch, all at once: for devices on which many small operations would be slow."""

from __future__ import annotations

import torch
from torch import Tensor

from synth.shards.view_recipes import (
    DOWN,
    HEIGHT,
    LEFT,
    MIRRORED,
    PARTNER_DOWN,
    PARTNER_RIGHT,
    RIGHT,
    SHARE,
    TOP,
    WHOLE,
    WIDTH,
)


def compose_tensors(own: Tensor, partner: Tensor, recipes: Tensor) -> Tensor:
    """As `synth.shards.views.compose`. Recipes on the CPU do not wait for what the device of the images still does."""
    crops = bool((recipes[:, [HEIGHT, WIDTH]] != torch.tensor(own.shape[2:], device=recipes.device)).any())
    recipes = recipes.to(own.device)
    pixels = shifted(own, recipes[:, DOWN], recipes[:, RIGHT])
    other = shifted(partner, recipes[:, PARTNER_DOWN], recipes[:, PARTNER_RIGHT])
    share = recipes[:, SHARE].int()[:, None, None, None]
    mixed = share * pixels.int() + (WHOLE - share) * other.int()
    pixels = ((mixed + WHOLE // 2) // WHOLE).to(torch.uint8)
    if crops:
        pixels = cropped(pixels, recipes)
    return torch.where((recipes[:, MIRRORED] != 0)[:, None, None, None], pixels.flip(3), pixels)


def shifted(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images (M, C, H, W) moved by these numbers of pixels (M,), with their borders repeated."""
    height, width = images.shape[2:]
    rows = (torch.arange(height, device=images.device) - down.long()[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right.long()[:, None]).clamp(0, width - 1)
    return picked(images, rows, columns)


def picked(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels of each image at its own rows (M, H) and columns (M, W): (M, C, H, W)."""
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


def cropped(images: Tensor, recipes: Tensor) -> Tensor:
    """The box of each image, resized to the whole side by bilinear interpolation with weights of 1/256."""
    height, width = images.shape[2:]
    rows, lower, down = taps(recipes[:, TOP], recipes[:, HEIGHT], height)
    columns, further, right = taps(recipes[:, LEFT], recipes[:, WIDTH], width)
    down, right = down[:, None, :, None], right[:, None, None, :]

    def line(of: Tensor) -> Tensor:
        near, far = picked(images, of, columns).int(), picked(images, of, further).int()
        return (WHOLE - right) * near + right * far

    mixed = (WHOLE - down) * line(rows) + down * line(lower)
    return ((mixed + WHOLE * WHOLE // 2) // (WHOLE * WHOLE)).to(torch.uint8)


def taps(begin: Tensor, length: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `side` output pixels of a resized span: its two source pixels, and the second's weight in 1/256.

    `begin` and `length`, (M,), are the span in source pixels. The results are (M, side). Pixel centres are aligned as
    in `F.interpolate(align_corners=False)`.
    """
    begin, length = begin.long()[:, None], length.long()[:, None]
    # The centre of output pixel i lies at (i + 1/2) * length / side - 1/2 source pixels, here in units of 1/256.
    centre = torch.arange(side, device=begin.device) * 2 + 1
    place = (WHOLE * (centre * length - side)).clamp(min=0) // (2 * side)
    first = (place // WHOLE).minimum(length - 1)
    second = (first + 1).minimum(length - 1)
    return begin + first, begin + second, (place % WHOLE).int()
