"""What photographs have in common, for networks that keep no statistics of theirs.

The amplitude of a frequency falls as its inverse (Field 1987), and the colours of a pixel rise and fall together.
Images that start so, and a gradient that is filtered so (Olah et al. 2017), stay free of the fine patterns that only
the network sees.
"""

from __future__ import annotations

import torch
from torch import Tensor

ALIKE = 0.9  # correlation of two colour channels


def natural_noise(noise: Tensor) -> Tensor:
    """Noise (N, C, H, W) with the spectrum and the colours of photographs, of mean square 1."""
    x = filtered(noise, amplitudes(noise))
    x = torch.einsum("cd,ndhw->nchw", colour_mixing(noise.shape[1]).to(x), x)
    return x / x.square().mean().sqrt()


def amplitudes(x: Tensor) -> Tensor:
    """1 / f for each frequency of images (N, C, H, W), as `torch.fft.rfft2` orders them; 1 for the lowest."""
    height, width = x.shape[-2:]
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None]
    lowest = 1 / max(height, width)
    return (lowest / (rows.square() + columns.square()).sqrt().clamp_min(lowest)).to(x.device)


def filtered(x: Tensor, weights: Tensor) -> Tensor:
    """Images with each frequency multiplied by its weight."""
    return torch.fft.irfft2(torch.fft.rfft2(x) * weights, s=x.shape[-2:])


def colour_mixing(channels: int) -> Tensor:
    """The symmetric square root of the correlation matrix of the channels, (C, C)."""
    values, vectors = torch.linalg.eigh(torch.full((channels, channels), ALIKE) + (1 - ALIKE) * torch.eye(channels))
    return vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
