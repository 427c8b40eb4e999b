"""Blends of training samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Gamma


def mixup(x: Tensor, targets: Tensor, alpha: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blend images (N, C, H, W) and soft targets (N, K) with those of another sample (mixup, Zhang et al. 2018).

    The share is drawn from Beta(alpha, alpha) once per batch. alpha 0 leaves the batch as it is.
    """
    if alpha == 0:
        return x, targets
    share, other = pairing(x, alpha, rng)
    return blend_pairs(x, share, other), blend_pairs(targets, share, other)


def mixed(x: Tensor, alpha: float, rng: torch.Generator) -> Tensor:
    """Images (N, C, H, W) blended as `mixup` does, for a teacher to label."""
    return blend_pairs(x, *pairing(x, alpha, rng)) if alpha else x


def pairing(x: Tensor, alpha: float, rng: torch.Generator) -> tuple[float, Tensor]:
    """The share of each sample itself, and the rows (N,) of the samples that it is blended with."""
    gammas = gamma_variates(alpha, rng)
    share = (gammas[0] / gammas.sum()).item()
    return share, torch.randperm(len(x), generator=rng).to(x.device)


def gamma_variates(alpha: float, rng: torch.Generator) -> Tensor:
    """Two variates of Gamma(alpha), (2,). `torch.distributions` draws from PyTorch's global source, which is `rng`
    meanwhile.
    """
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(rng.get_state())
        variates = Gamma(torch.full((2,), alpha), torch.ones(())).sample()
        rng.set_state(torch.get_rng_state())
    return variates


def blend_pairs(x: Tensor, share: float, other: Tensor) -> Tensor:
    return share * x + (1 - share) * x[other]
