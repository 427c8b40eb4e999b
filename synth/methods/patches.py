"""Patch-similarity entropy: what a network without batch norm shows of its training images (PSAQ-ViT, Li et al. 2022).

On a photograph, patches of the object resemble each other and differ from those of the background, so the similarities
of a network's tokens are spread. On noise all tokens are alike. The loss spreads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synth.basics.errors import UsageError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.image_norms import ImageNorms, image_norm_layers, watch_image_norms

MOST_TOKENS = 24  # of a layer, evenly spaced; their pairs show the distribution, and all pairs would cost the square
FEWEST_TOKENS = 9
ENDS, POINTS = 1.2, 25  # the grid on which the density is estimated goes from -1.2 to 1.2
BANDWIDTH = 0.1  # of the Gaussian kernel


def refuse_idle_patches(teacher: Classifier, weight: float) -> None:
    """Raise UsageError if the loss has a weight and no layer of the teacher has one."""
    if weight and not image_norm_layers(teacher.net):
        raise UsageError(
            f"--patches has no effect on {teacher.card.architecture}, which has no layers that normalise each image on "
            "its own, as LayerNorm and GroupNorm do: leave it out"
        )


@contextmanager
def watch_patches(net: nn.Module, weight: float) -> Iterator[Callable[[], Tensor] | None]:
    """A function that gives the weighted loss of the network's last forward pass; None if no layer has one."""
    if not weight or not image_norm_layers(net):
        yield None
        return
    with watch_image_norms(net) as norms:
        yield lambda: weight * patch_loss(norms)


def patch_loss(norms: ImageNorms) -> Tensor:
    """-mean_l H_l of the layers of the last forward pass that have at least nine places; 0 if there is none.

    The paper takes the outputs of the attention. Here the outputs of all layers that normalise each image on its own
    are taken, which every network without batch norm has, convolutional ones too; and the mean over layers, so that one
    weight fits every depth.
    """
    layers = [tokens for tokens in norms.tokens.values() if tokens.shape[1] >= FEWEST_TOKENS]
    return -torch.stack([similarity_entropy(tokens) for tokens in layers]).mean() if layers else torch.zeros(())


def similarity_entropy(tokens_BTC: Tensor) -> Tensor:
    """mean_b H[cos(u_bi, u_bj), i < j], a scalar in nats: the differential entropy of the similarities of an image's
    tokens.

    H = -∫ f ln f, where f is a kernel density estimate. The published kernel is 0.01 wide on ten points between the
    smallest and the largest similarity, and misses what lies between; ours is as wide as the step of a fixed grid.
    """
    tokens = tokens_BTC.float()
    tokens = tokens[:, torch.linspace(0, tokens.shape[1] - 1, min(MOST_TOKENS, tokens.shape[1])).long()]
    unit = F.normalize(tokens, dim=2)
    first, second = torch.triu_indices(unit.shape[1], unit.shape[1], offset=1, device=unit.device)
    similarities = (unit @ unit.transpose(1, 2))[:, first, second]
    grid = torch.linspace(-ENDS, ENDS, POINTS, device=unit.device)
    apart = (similarities[:, None] - grid[:, None]) / BANDWIDTH
    density = (-0.5 * apart.square()).exp().mean(2) / (BANDWIDTH * math.sqrt(2 * math.pi))
    return -torch.trapezoid(torch.xlogy(density, density + 1e-12), grid, dim=1).mean()


def instead_of_statistics(teacher: Classifier, terms: Sequence[str], pixels: bool) -> str:
    """The line that says what a method uses instead of batch-norm statistics.

    Args:
        pixels: whether the pixels' mean and variance are among it.
    """
    used = ", ".join(["the class", *(["the pixels' statistics"] if pixels else []), *terms])
    return f"{teacher.card.architecture} has no batch norm, whose statistics show training images: uses {used} instead"
