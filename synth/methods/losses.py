"""Losses for images and for image generators. Those on batch-norm statistics are in synth/checkpoint/batch_norm.py."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def disagreement(teacher_logits: Tensor, student_logits: Tensor, inhibited: tuple[int, ...] = ()) -> Tensor:
    """mean_n [ Σ_{c ∉ F} k_c - Σ_{c ∈ F} k_c ],  k_c = p_c (log p_c - log q_c), a scalar in nats. Generators maximise
    it.

    Without inhibited classes this is mean_n KL(T(x_n) || S(x_n)). ISPF inverts the sign of the terms of the forget
    classes F, so that a generator gains nothing from producing them (Zhang et al. 2025).
    """
    log_p, log_q = teacher_logits.log_softmax(1), student_logits.log_softmax(1)
    terms_NK = log_p.exp() * (log_p - log_q)
    sign_K = torch.ones(terms_NK.shape[1], device=terms_NK.device)
    sign_K[list(inhibited)] = -1.0
    return (terms_NK * sign_K).sum(1).mean()


def jensen_shannon(logits: Tensor, other_logits: Tensor) -> Tensor:
    """JS(p || q) = ½ KL(p || m) + ½ KL(q || m) with m = ½ (p + q), in bits: logits (N, K) twice to (N,)."""
    log_p, log_q = logits.log_softmax(1), other_logits.log_softmax(1)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0))
    nats = (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(1) / 2
    return nats / torch.log(torch.tensor(2.0))


def agreement(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """R_compete = 1 - mean_n JS(T(x_n) || S(x_n)), a scalar from 0 to 1: the term of Adaptive DeepInversion (Yin et al.
    2020). Images minimise it, so that teacher and student disagree on them.
    """
    return 1 - jensen_shannon(teacher_logits, student_logits).mean()


def one_hot_loss(teacher_logits: Tensor) -> Tensor:
    """mean_n CE(T(x_n), argmax T(x_n)): low for images of which the teacher is certain (DAFL, Chen et al. 2019)."""
    return F.cross_entropy(teacher_logits, teacher_logits.argmax(1))


def balance_loss(teacher_logits: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Σ_c p̄_c log p̄_c, where p̄ is the batch mean of p over `classes`. The negative entropy: lowest if the classes
    are equally frequent.
    """
    mean_K = teacher_logits[:, list(classes)].softmax(1).mean(0)
    return torch.xlogy(mean_K, mean_K).sum()


def activation_loss(features: Tensor) -> Tensor:
    """-mean_n mean_d |f_nd| for features (N, D): training images give strong features (DAFL, Chen et al. 2019)."""
    return -features.abs().mean()


def diversity_loss(z: Tensor, x: Tensor, labels: Tensor) -> Tensor:
    """mean_p  d(z_a, z_b) / (d(x_a, x_b) + ε): mode seeking (Mao et al. 2019). Both images of a pair p have one class.

    d is the mean absolute difference. The loss is low if different noise gives different images, and 0 without a pair.
    """
    order = labels.argsort(stable=True)
    first, second = order[: len(order) // 2 * 2 : 2], order[1::2]
    alike = (labels[first] == labels[second]).to(x.dtype)
    apart_z = (z[first] - z[second]).abs().flatten(1).mean(1)
    apart_x = (x[first] - x[second]).abs().flatten(1).mean(1)
    return (alike * apart_z / (apart_x + 1e-2)).sum() / alike.sum().clamp_min(1)


def total_variation(x: Tensor) -> Tensor:
    """The mean squared difference of neighbouring pixels of (N, C, H, W), downwards plus to the right."""
    down, right = x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]
    return down.square().mean() + right.square().mean()


def blur(x: Tensor, times: int) -> Tensor:
    """(B, C, H, W) after `times` passes of the 3x3 binomial filter.

    For a gradient this means descent in a smoother (Sobolev) norm: it suppresses textures of single pixels, which only
    the network sees, but not strokes.
    """
    for _ in range(times):
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        x = weighted_sum(padded) if x.device.type == "cpu" else convolution(padded)
    return x


BINOMIAL = tuple(tuple(a * b / 16 for b in (1.0, 2.0, 1.0)) for a in (1.0, 2.0, 1.0))


def convolution(padded: Tensor) -> Tensor:
    channels = padded.shape[1]
    return F.conv2d(padded, binomial(padded.device, padded.dtype).expand(channels, 1, 3, 3), groups=channels)


@lru_cache
def binomial(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The kernel (3, 3), made once: nothing may be copied to a GPU while a CUDA graph is captured."""
    return torch.tensor(BINOMIAL, device=device, dtype=dtype)


def weighted_sum(padded: Tensor) -> Tensor:
    """The same bytes as by `convolution`: the weights are powers of two, and the order of the sum is the same. On a CPU
    it takes half of the time or less.
    """
    height, width = padded.shape[2] - 2, padded.shape[3] - 2
    total = padded.new_zeros(*padded.shape[:2], height, width)
    for down, row in enumerate(BINOMIAL):
        for right, weight in enumerate(row):
            total.add_(padded[:, :, down : down + height, right : right + width], alpha=weight)
    return total
