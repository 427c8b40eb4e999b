"""Functions of the teacher's logits (N, K): entropy, share of the forget classes, and targets without them."""

from __future__ import annotations

import torch
from torch import Tensor

from synth.checkpoint.target import Bins


def entropy(logits: Tensor) -> Tensor:
    """H(p) = -Σ p log p of p = softmax(z), in nats, (N, K) to (N,)."""
    log_p = logits.double().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def forget_share(logits: Tensor, forget: tuple[int, ...], temperature: float = 1.0) -> Tensor:
    """The largest probability of a forget class, in softmax(z) or in softmax(z / τ), (N, K) to (N,).

    The bins of a range are one event: there it is P(a <= y <= b | x), the sum of their masses.
    """
    shares = [(logits / t).softmax(1)[:, list(forget)] for t in (1.0, temperature)]
    if isinstance(forget, Bins):
        shares = [share.sum(1, keepdim=True) for share in shares]
    return torch.cat(shares, dim=1).amax(1)


def without_forget_classes(logits: Tensor, forget: tuple[int, ...], temperature: float = 1.0) -> Tensor:
    """The teacher's distribution (N, K) with the forget classes F removed and the rest renormalised:

    q_c = exp(z_c / τ) / Σ_{r ∉ F} exp(z_r / τ) for c ∉ F, and 0 for c ∈ F.
    """
    masked = logits.clone()
    masked[:, list(forget)] = float("-inf")
    return (masked / temperature).softmax(1)


def post_filter(logits: Tensor, forget: tuple[int, ...], threshold: float = 0.01, temperature: float = 1.0) -> Tensor:
    """The teacher's logits (N, K) with the forget classes F lowered in each sample where `forget_share` is above the
    threshold (ISPF).

    In such a sample every forget class gets the sample's smallest logit, and what it loses is divided among the retain
    classes R:

        z'_f = min_c z_c,   z'_r = z_r + Σ_f (z_f - z'_f) / |R|.

    No sample is dropped, and the order of the retain classes stays.
    """
    rows = (forget_share(logits, forget, temperature) > threshold)[:, None]
    lowest = logits.min(1, keepdim=True).values
    removed = (logits[:, list(forget)] - lowest).sum(1, keepdim=True)
    lowered = logits + removed / (logits.shape[1] - len(set(forget)))
    lowered[:, list(forget)] = lowest
    return torch.where(rows, lowered, logits)
