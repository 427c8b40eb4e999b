"""Random changes of a batch that leave its classes as they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shift_and_flip(x: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `shift` pixels, its border repeated, and mirrored half of the time where `flip` is on.

    x: floats (N, C, S, S). `generator` is a CPU generator.
    """
    count, _, height, width = x.shape
    if shift:
        padded = F.pad(x, (shift, shift, shift, shift), mode="replicate")
        top, left = torch.randint(0, 2 * shift + 1, (2, count, 1), generator=generator).to(x.device)
        rows = (top + torch.arange(height, device=x.device))[:, None, :, None]
        columns = (left + torch.arange(width, device=x.device))[:, None, None, :]
        samples = torch.arange(count, device=x.device)[:, None, None, None]
        channels = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        x = padded[samples, channels, rows, columns]
    if flip:
        mirrored = torch.rand(count, generator=generator).to(x.device) < 0.5
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    return x
