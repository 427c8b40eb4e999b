"""Random views of images: what a teacher sees of them in one step of a synthesis.

A crop of another size for each step makes an image that is recognised at every scale (multi-crop; SRe2L, Yin et al.
2023). Crop, resize, roll and mirror image are linear along each axis, so a view is two matrix products. Their gradient
is deterministic on every device, which is not true of `F.interpolate` and `F.grid_sample` on CUDA.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True)
class Ranges:
    """What is drawn for each view. Every number is a share of the image: of its area, or of its sides."""

    crop: float = 1.0  # the smallest area of a crop
    roll: float = 0.0  # the largest shift, with wrap-around
    flip: bool = False


def random_views(x: Tensor, size: Size, ranges: Ranges, each: bool, rng: torch.Generator) -> Tensor:
    """Views of the images (B, C, H, W) at another size.

    Args:
        each: draw crop, shift and mirror image for each image, not once for all.
        rng: a random source on the CPU.
    """
    return seen_as_drawn(x, size, draw(len(x) if each else 1, ranges, rng))


# What is drawn for N views, or for one view of all images: areas (N,), starts (2, N), shifts (2, N), mirrored (N,).
Draws = tuple[Tensor, ...]


def draw(count: int, ranges: Ranges, rng: torch.Generator) -> Draws:
    """Each view's area as a share of the image's, the crop's place from 0 to 1 on both axes, the shift as a share of
    the side on both axes, and whether the view is mirrored. `rng` and the results are on the CPU.
    """
    area = ranges.crop + (1 - ranges.crop) * torch.rand(count, generator=rng)
    starts, shifts = torch.rand(2, count, generator=rng), 2 * torch.rand(2, count, generator=rng) - 1
    mirrored = torch.rand(count, generator=rng) < (0.5 if ranges.flip else 0.0)
    return area, starts, shifts * ranges.roll, mirrored


def seen_as_drawn(x: Tensor, size: Size, draws: Draws, dtype: torch.dtype = torch.float32) -> Tensor:
    """The views of the images (B, C, H, W) at another size, computed in `dtype`.

    All sizes are fixed, so that a CUDA graph can hold this.
    """
    area, starts, shifts, mirrored = (drawn.to(x.device) for drawn in draws)
    rows, columns = (
        axis_weights(
            before,
            after,
            start=start * (1 - area.sqrt()) * before,
            length=area.sqrt() * before,
            shift=(shift * after).round().long(),
            mirrored=mirrored if horizontal else torch.zeros_like(mirrored),
        )
        for before, after, start, shift, horizontal in zip(
            x.shape[-2:], size, starts, shifts, (False, True), strict=True
        )
    )
    return rows.to(dtype)[:, None].transpose(-1, -2) @ x.to(dtype) @ columns.to(dtype)[:, None]


def axis_weights(before: int, after: int, start: Tensor, length: Tensor, shift: Tensor, mirrored: Tensor) -> Tensor:
    """Matrices (N, before, after) of a linear resize of a part of one axis, rolled and mirrored afterwards.

    Args:
        start, length: the part, (N,), in pixels.
        shift: the roll in pixels of the result, (N,).
        mirrored: whether the result is mirrored, (N,).

    A resize to fewer pixels takes the mean of a triangle as wide as the step (antialiasing).
    """
    index = (torch.arange(after, device=shift.device) - shift[:, None]) % after
    index = torch.where(mirrored[:, None], after - 1 - index, index)
    step = (length / after)[:, None]
    position = start[:, None] + (index + 0.5) * step - 0.5
    lowest, highest = start[:, None].ceil(), (start + length)[:, None].floor() - 1
    position = torch.minimum(torch.maximum(position, lowest), highest)
    if 2 <= before <= after:
        return between_two_pixels(before, position)
    pixels = torch.arange(before, device=shift.device)[None, :, None]
    weights = (1 - (pixels - position[:, None]).abs() / step.clamp_min(1)[:, None]).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def between_two_pixels(before: int, position: Tensor) -> Tensor:
    """Matrices (N, before, after) of the linear interpolation at these positions (N, after), in pixels.

    A part is never larger than the axis, so that a resize to as many pixels or more takes two of them at most.
    """
    first = position.floor().clamp(0, before - 2)
    share = (position - first)[:, None]
    weights = position.new_zeros(len(position), before, position.shape[1])
    place = first.long()[:, None]
    return weights.scatter_(1, place, 1 - share).scatter_(1, place + 1, share)


def resize(x: Tensor, size: Size) -> Tensor:
    """Images (B, C, H, W) at another height and width, bilinear."""
    if tuple(x.shape[-2:]) == size:
        return x
    if x.device.type == "cuda":
        return resize_by_products(x, size)
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def resize_by_products(x: Tensor, size: Size) -> Tensor:
    """Bilinear resize as two matrix products, because the gradient of `F.interpolate` is not deterministic on CUDA."""
    rows, columns = (linear_weights(x, before, after) for before, after in zip(x.shape[-2:], size, strict=True))
    return rows.T @ x @ columns


def linear_weights(x: Tensor, before: int, after: int) -> Tensor:
    """The matrix (before, after) of a linear resize along one axis, of the dtype and on the device of x."""
    units = torch.eye(before, device=x.device, dtype=x.dtype)[None]
    return F.interpolate(units, size=after, mode="linear", align_corners=False)[0]


def falling(first: float, last: float, done: float) -> float:
    """From `first` to `last` along half a cosine, while `done` goes from 0 to 1."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))
