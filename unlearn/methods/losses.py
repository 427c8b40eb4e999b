"""The loss of every student. It is in one place, so that one test can watch the targets of all methods."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def divergence(targets: Tensor, logits: Tensor, temperature: float = 1.0, reduction: str = "batchmean") -> Tensor:
    """τ² mean_n KL(q_n || softmax(z_n / τ)), a scalar in nats; for one-hot targets, the cross-entropy.

    Args:
        targets: distributions q (N, K), computed at the same temperature. logits: z (N, K). reduction: `batchmean` is
        the equation. `mean`, the default of `F.kl_div`, divides by K as well; published weights
            of other loss terms assume it.
    """
    loss = temperature**2 * F.kl_div((logits / temperature).log_softmax(1), targets, reduction="batchmean")
    return loss / targets.shape[1] if reduction == "mean" else loss


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Class indices (N,) as float distributions (N, K)."""
    return F.one_hot(labels, num_classes).float()
