"""The image generator of data-free distillation, and the terms that it is trained by."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Generator(nn.Module):
    """Noise (N, Z) to images (N, C, S, S) in normalised pixels.

    The network of GKT: a linear layer to S/4 + 1 squared, twice enlarged and convolved, and a 7x7 convolution that takes
    the margin of 4 off again; at last batch norm on the image itself, so that the range is a normalised image's but has
    no bounds. `channels` is 128 there; a small teacher needs far less, and the generator's cost is most of a run's.
    """

    def __init__(self, z: int, channels: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.side = image_shape[1]
        start, narrow = -(-self.side // 4) + 1, max(1, channels // 2)
        self.net = nn.Sequential(
            *(nn.Linear(z, channels * start * start), nn.Unflatten(1, (channels, start, start))),
            *(nn.BatchNorm2d(channels), nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1)),
            *(nn.BatchNorm2d(channels), nn.LeakyReLU(0.2), nn.Upsample(scale_factor=2)),
            *(nn.Conv2d(channels, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(narrow, image_shape[0], 7, padding=1), nn.BatchNorm2d(image_shape[0])),
        )

    @classmethod
    def untrained(cls, z: int, channels: int, image_shape: tuple[int, int, int], seed: int) -> Generator:
        """A function of the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(z, channels, image_shape)

    def forward(self, z: Tensor) -> Tensor:
        x_norm = self.net(z)
        margin = (x_norm.shape[-1] - self.side) // 2  # 0 where 4 divides the side
        return x_norm[..., margin : margin + self.side, margin : margin + self.side]


def disagreement(teacher_logits: Tensor, student_logits: Tensor, inhibited: tuple[int, ...] = ()) -> Tensor:
    """mean_n [ Σ_{c ∉ F} k_c - Σ_{c ∈ F} k_c ],  k_c = p_c (log p_c - log q_c), a scalar in nats; generators maximise it.

    Without inhibited classes it is mean_n KL(T(x_n) || S(x_n)). ISPF turns the sign of the forget classes' terms, so that
    nothing is to be gained by producing them (Zhang et al. 2025).
    """
    log_p, log_q = teacher_logits.log_softmax(1), student_logits.log_softmax(1)
    terms_NK = log_p.exp() * (log_p - log_q)
    sign_K = torch.ones(terms_NK.shape[1], device=terms_NK.device)
    sign_K[list(inhibited)] = -1.0
    return (terms_NK * sign_K).sum(1).mean()


def one_hot_loss(teacher_logits: Tensor) -> Tensor:
    """mean_n CE(T(x_n), argmax T(x_n)): images that the teacher is sure of (Chen et al. 2019, DAFL)."""
    return F.cross_entropy(teacher_logits, teacher_logits.argmax(1))


def balance_loss(teacher_logits: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Σ_c p̄_c log p̄_c, p̄ being the mean over the batch of p over `classes`: -H, lowest where they are equally frequent."""
    mean_K = teacher_logits[:, list(classes)].softmax(1).mean(0)
    return torch.xlogy(mean_K, mean_K).sum()
