"""Blends of training samples."""

from __future__ import annotations

import torch
from torch import Tensor


def mixup(x: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images and soft targets (N, K) blended with those of another sample (Zhang et al. 2018).

    The share is drawn from Beta(alpha, alpha), once a batch; alpha 0 leaves the batch as it is.
    """
    if alpha == 0:
        return x, targets
    share, other = pairing(x, alpha, generator)
    return blend(x, share, other), blend(targets, share, other)


def mixed(x: Tensor, alpha: float, generator: torch.Generator) -> Tensor:
    """Images blended as by `mixup`, for a teacher to label."""
    return blend(x, *pairing(x, alpha, generator)) if alpha else x


def pairing(x: Tensor, alpha: float, generator: torch.Generator) -> tuple[float, Tensor]:
    """The share of the sample itself, and the row of the other, (N,)."""
    # A Beta variate from torch's generator: torch.distributions takes none.
    gammas = torch._standard_gamma(torch.full((2,), alpha), generator=generator)
    share = (gammas[0] / gammas.sum()).item()
    return share, torch.randperm(len(x), generator=generator).to(x.device)


def blend(x: Tensor, share: float, other: Tensor) -> Tensor:
    return share * x + (1 - share) * x[other]
