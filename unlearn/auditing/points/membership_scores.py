"""Per-example membership: how much surer a model is of an example's label than models that never saw the example.

RMIA    the share of other images z against which x stands out (Zarifzadeh et al., ICML 2024):
            score(x) = mean_z 1[ (p(x) / q(x)) / (p(z) / q(z)) >= γ ],     q = ((1 + a) q_out + 1 - a) / 2
        p is the model's probability of the label, q_out its mean over the reference models, and q the estimate of what
        models with and without x would give together, as the paper has it for references that never saw x. γ = 2 and
        a = 0.3 are the paper's for CIFAR-10. It works with one reference.
U-LiRA  how far the logit of that probability lies above the references' (Carlini et al. 2022, in the form of Hayes et
        al. 2024 for unlearned models; one-sided, because every reference is a model without x):
            score(x) = (φ(x) - mean φ_out(x)) / s,     φ = log p - log(1 - p)
        s is the references' standard deviation over all images, since two or three references give none for each.
"""

from __future__ import annotations

import torch
from torch import Tensor

GAMMA, OFFLINE = 2.0, 0.3
SMALLEST = 1e-12


def chances(logits: Tensor, labels: Tensor) -> Tensor:
    """The probability of each image's label, (N, K) and (N,) to (N,), float64."""
    return logits.double().softmax(1).gather(1, labels[:, None])[:, 0]


def rmia(p_x: Tensor, out_x: Tensor, p_z: Tensor, out_z: Tensor) -> Tensor:
    """RMIA's score of N images against Z others, (N,).

    Args:
        p_x, p_z: the model's probabilities of the labels, (N,) and (Z,).
        out_x, out_z: the reference models' mean probabilities, (N,) and (Z,).
    """
    ratio_x, ratio_z = (p / (0.5 * ((1 + OFFLINE) * q + 1 - OFFLINE)) for p, q in ((p_x, out_x), (p_z, out_z)))
    return (ratio_x[:, None] >= GAMMA * ratio_z[None, :]).double().mean(1)


def u_lira(p: Tensor, out: Tensor) -> Tensor:
    """U-LiRA's score of N images, (N,).

    Args:
        p: the model's probabilities of the labels, (N,).
        out: those of R >= 2 reference models, (R, N).
    """
    phi = log_odds(out)
    spread = phi.var(0).mean().sqrt().clamp_min(1e-6)
    return (log_odds(p) - phi.mean(0)) / spread


def log_odds(p: Tensor) -> Tensor:
    p = p.clamp(SMALLEST, 1 - SMALLEST)
    return p.log() - (1 - p).log()


def area(members: Tensor, others: Tensor) -> float:
    """The area under the ROC curve, in %, of scores of M members against those of others; ties count half."""
    scores = torch.cat([members, others])
    _, place, count = scores.unique(return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    ranks = (last - (count - 1) / 2)[place][: len(members)]
    return 100 * float((ranks.mean() - (len(members) + 1) / 2) / len(others))
