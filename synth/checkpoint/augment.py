"""Random changes of images that keep their classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shift_and_flip(x: Tensor, shift: int, flip: bool, rng: torch.Generator) -> Tensor:
    """Shift each image by up to `shift` pixels, repeating its border, and with `flip` mirror half of the images.

    x: floats (N, C, S, S). `rng` is on the CPU.
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
    """Shift the images (N, C, S, S) to their corners from `draw_corners`, repeating the border."""
    count, channels, height, width = x.shape
    padded = F.pad(x, (shift, shift, shift, shift), mode="replicate")
    top, left = corners.T[..., None].to(x.device)
    rows = (top + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (left + torch.arange(width, device=x.device))[:, None, None, :]
    sample = torch.arange(count, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[None, :, None, None]
    return padded[sample, channel, rows, columns]
