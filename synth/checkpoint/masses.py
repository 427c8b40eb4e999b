"""The distribution that a regressor predicts: masses of bins, from any head; and what is read from them.

A mass is the probability of one bin (`synth.checkpoint.target`). Masses come as logits z (N, K) with softmax(z) = the
masses, as a classifier's answers do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import log_ndtr

from synth.checkpoint.target import Target

CLIPPED = -1e4  # a logit whose softmax is 0 in floating point
NARROWEST = 0.1  # of a bin's width: with less, gradients would overflow, and the masses be the same
WIDEST = 10  # times the range: a larger one gives even masses
SMALLEST = 1e-12


def masses_from(raw: Tensor, target: Target) -> Tensor:
    """Logits (N, K) over the target's bins, of a network's outputs: (N, K), (N, 2), or (N, 1) and (N,)."""
    if target.head == "bins":
        logits = raw
    else:
        outputs = raw.reshape(len(raw), -1).float()
        mean = target.offset + target.scale * outputs[:, 0]
        if target.head == "number":
            assert target.spread is not None, "Target checks it"
            std = torch.full_like(mean, target.spread)
        else:
            std = target.scale * (0.5 * outputs[:, 1]).exp()
        logits = gaussian_masses(mean, std, target)
    if target.clip is not None:
        inside = torch.zeros(target.bins, dtype=torch.bool, device=logits.device)
        inside[list(target.bins_within(*target.clip))] = True
        logits = torch.where(inside, CLIPPED + logits.detach().amin(1, keepdim=True), logits)
    return logits


def gaussian_masses(mean: Tensor, std: Tensor, target: Target) -> Tensor:
    """log P(bin) of N(mean, std²), means and standard deviations (N,) in the target's unit, to (N, K).

    P(bin) = Φ((b - μ) / σ) - Φ((a - μ) / σ); the first bin reaches to minus infinity, the last to infinity. σ² gets a
    tenth of a bin's width squared added, and σ is at most ten times the range. The logarithm is taken of the smaller
    tail, so that it is exact far from the mean as well.
    """
    std = (std.square() + (NARROWEST * target.width) ** 2).sqrt().clamp_max(WIDEST * (target.high - target.low))
    inner = torch.tensor(target.edges[1:-1], device=mean.device, dtype=mean.dtype)
    z = (inner - mean[:, None]) / std[:, None]  # (N, K - 1)
    left, right = z[:, :-1], z[:, 1:]
    flip = left + right > 0  # above the mean, the upper tails are the small ones
    near, far = torch.where(flip, -left, right), torch.where(flip, -right, left)
    larger = log_ndtr(near)
    inside = larger + torch.log1p(-(log_ndtr(far) - larger).exp().clamp_max(1 - SMALLEST))
    return torch.cat([log_ndtr(z[:, :1]), inside, log_ndtr(-z[:, -1:])], dim=1)


def quantile(logits: Tensor, target: Target, share: float) -> Tensor:
    """The target below which lies this share of the mass, in the unit, (N, K) to (N,). Mass is even within a bin."""
    below = logits.double().softmax(1).cumsum(1)
    number = (below < share).sum(1, keepdim=True).clamp_max(target.bins - 1)
    upper = below.gather(1, number)
    lower = torch.where(number > 0, below.gather(1, (number - 1).clamp_min(0)), torch.zeros_like(upper))
    inside = ((share - lower) / (upper - lower).clamp_min(SMALLEST)).clamp(0, 1)
    return (target.low + (number + inside) * target.width)[:, 0]


def median(logits: Tensor, target: Target) -> Tensor:
    """The prediction as one number, in the unit, (N, K) to (N,): the median has the least expected absolute error."""
    return quantile(logits, target, 0.5)


def near(predictions: Tensor, values: Tensor, target: Target) -> Tensor:
    """Which predictions (N,) are at most a bin's width from their targets (N,): a regressor's right answers."""
    return (predictions - values).abs() <= target.width


def bins_of(values: Tensor, target: Target) -> Tensor:
    """The number of the bin that each target (N,) lies in, int64."""
    return ((values.double() - target.low) / target.width).floor().long().clamp(0, target.bins - 1)


def negative_log_likelihood(logits: Tensor, values: Tensor, target: Target) -> Tensor:
    """-log p(y | x) with the density that is even within each bin, in nats of the unit, (N, K) and (N,) to (N,)."""
    log_p = logits.double().log_softmax(1)
    return math.log(target.width) - log_p.gather(1, bins_of(values, target).to(logits.device)[:, None])[:, 0]


def covered(logits: Tensor, values: Tensor, target: Target, share: float) -> Tensor:
    """Whether each target (N,) lies in the central interval that holds this share of the predicted mass, (N,) bool."""
    low, high = (quantile(logits, target, (1 + sign * share) / 2) for sign in (-1, 1))
    return (low <= values.double()) & (values.double() <= high)
