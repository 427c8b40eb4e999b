"""Random changes of images that keep their classes."""

from __future__ import annotations

import torch
from torch import Tensor


def shift_and_flip(x: Tensor, shift: int, flip: bool, rng: torch.Generator) -> Tensor:
    """Shift each image by up to `shift` pixels, repeating its border, and with `flip` mirror half of the images.

    x: images (N, C, S, S), floats or uint8. `rng` is on the CPU.
    """
    if shift:
        x = shifted(x, shift, draw_corners(len(x), shift, rng))
    if flip:
        mirrored = torch.rand(len(x), generator=rng).to(x.device) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    return x


def draw_corners(count: int, shift: int, rng: torch.Generator) -> Tensor:
    """Random corners for `shifted`, (N, 2): row and column of each image inside a margin of `shift` pixels."""
    return torch.randint(0, 2 * shift + 1, (2, count), generator=rng).T


def shifted(x: Tensor, shift: int, corners: Tensor) -> Tensor:
    """Shift the images (N, C, H, W) to their corners from `draw_corners`, repeating the border."""
    height, width = x.shape[2:]
    top, left = (corners.T[..., None] - shift).to(x.device)
    rows = (top + torch.arange(height, device=x.device)).clamp(0, height - 1)
    columns = (left + torch.arange(width, device=x.device)).clamp(0, width - 1)
    x = x.gather(2, rows[:, None, :, None].expand(x.shape))
    return x.gather(3, columns[:, None, None, :].expand(x.shape))
