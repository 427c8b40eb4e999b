"""Whether a normalisation fits a network: its first batch norm remembers the images of the training.

Up to that layer most networks are linear. So three numbers per channel of the layer are enough to estimate the mean and
the spread of the pixels that the network was trained on, and --mean and --std must turn real images into such pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synth.checkpoint.batch_norm import BatchNorm, batch_norm_layers
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import untouched

NOISES = 16  # images
ENOUGH_BATCHES = 50  # after which a momentum of 0.1 has forgotten the first statistics
SMALLEST_SPREAD = 0.11  # photographs have 0.2 to 0.3, digits 0.3; images with less contrast are rare
MEAN_ERROR, SPREAD_ERROR = 0.1, 1.6  # how far the estimates may be off: by a number, and by a factor
USUAL = {
    "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": (0.449, 0.226),
    "--mean 0.5 --std 0.5": (0.5, 0.5),
    "--mean 0 --std 1": (0.0, 1.0),
    "--mean 0 --std 0.003922 (pixels from 0 to 255)": (0.0, 1 / 255),
}
TYPICAL = (0.45, 0.25)  # mean and spread of photographs in [0, 1]


class FoundError(Exception):
    """Ends a forward pass at the first batch norm."""


@dataclass(frozen=True)
class Pixels:
    """Mean and standard deviation of pixels."""

    mean: float
    spread: float

    def in_unit(self, mean: float, std: float) -> Pixels:
        """The same before a normalisation."""
        return Pixels(self.mean * std + mean, self.spread * std)

    @property
    def plausible(self) -> bool:
        """Whether images in [0, 1] may have them. Their variance is at most mean * (1 - mean)."""
        most = (self.mean + MEAN_ERROR) * (1 + MEAN_ERROR - self.mean)
        return most > 0 and SMALLEST_SPREAD <= self.spread <= SPREAD_ERROR * most**0.5


def normalisation_warning(net: nn.Module, card: ModelCard) -> str | None:
    """A warning in one line if the card's normalisation does not fit the first batch norm; None if it does.

    None also for a network without batch norm, or with something before it that is not linear.
    """
    trained = pixels_of_training(net, card)
    if trained is None:
        return None
    mean, std = sum(card.mean) / len(card.mean), sum(card.std) / len(card.std)
    implied = trained.in_unit(mean, std)
    if implied.plausible:
        return None
    fitting = [text for text, (m, s) in USUAL.items() if trained.in_unit(m, s).plausible]
    fitting.sort(key=lambda text: distance(trained.in_unit(*USUAL[text])))
    cure = f"{fitting[0]} fits" if fitting else "look up the normalisation of its training"
    return (
        f"warning: with this --mean and --std the first batch norm implies images of mean {implied.mean:.2f} and "
        f"standard deviation {implied.spread:.2f}, where images in [0, 1] have about 0.45 and 0.25: {cure}"
    )


def distance(pixels: Pixels) -> float:
    """How far pixels are from typical ones, in factors of the spread and in units of the mean."""
    return abs(torch.tensor(pixels.spread / TYPICAL[1]).log().item()) + abs(pixels.mean - TYPICAL[0])


@torch.no_grad()
def pixels_of_training(net: nn.Module, card: ModelCard) -> Pixels | None:
    """Mean and spread of the normalised pixels that the first batch norm saw; None if they cannot be estimated."""
    zero = before_batch_norm(net, torch.zeros(1, *card.input_shape))
    grey = before_batch_norm(net, torch.ones(1, *card.input_shape))
    light = before_batch_norm(net, torch.full((1, *card.input_shape), 2.0))
    if zero is None or grey is None or light is None or zero[1].dim() != 4:
        return None
    layer, offset_C = zero[0], per_channel(zero[1])
    slope_C = per_channel(grey[1]) - offset_C
    doubled_C = per_channel(light[1]) - offset_C
    if slope_C.norm() == 0 or (doubled_C - 2 * slope_C).norm() > 1e-3 * doubled_C.norm():
        return None  # something before the layer is not linear
    assert layer.running_mean is not None
    assert layer.running_var is not None
    if 0 < int(layer.num_batches_tracked or 0) < ENOUGH_BATCHES or not layer.running_mean.any():
        return None  # the layer still has its first statistics, which are those of no images
    mean = (slope_C @ (layer.running_mean.float() - offset_C) / (slope_C @ slope_C)).item()
    noise = before_batch_norm(net, natural_noise(card.input_shape))
    assert noise is not None
    variance_C = noise[1].float().var((0, 2, 3))
    used = variance_C > 1e-3 * variance_C.max()
    spread = (layer.running_var.float()[used] / variance_C[used]).median().sqrt().item()
    return Pixels(mean, spread)


def before_batch_norm(net: nn.Module, x_norm: Tensor) -> tuple[BatchNorm, Tensor] | None:
    """The first batch norm that these images reach, and its input; None if they reach none."""
    found: list[tuple[BatchNorm, Tensor]] = []

    def keep(layer: BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        found.append((layer, inputs[0]))
        raise FoundError

    handles = [layer.register_forward_pre_hook(keep) for layer in batch_norm_layers(net)]
    try:
        with untouched(net):
            net(x_norm)
    except FoundError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def per_channel(x: Tensor) -> Tensor:
    return x.float().mean((0, 2, 3))


def natural_noise(shape: tuple[int, int, int]) -> Tensor:
    """Grey noise of mean 0 and spread 1 with the spectrum of photographs, whose amplitudes fall as 1 / frequency."""
    channels, height, width = shape
    rng = torch.Generator().manual_seed(0)
    rows, columns = torch.fft.fftfreq(height)[:, None] * height, torch.fft.rfftfreq(width) * width
    amplitude = 1 / (rows**2 + columns**2).sqrt().clamp_min(1)
    spectrum = torch.fft.rfft2(torch.randn(NOISES, 1, height, width, generator=rng)) * amplitude
    noise = torch.fft.irfft2(spectrum, s=(height, width))
    return (noise / noise.std()).expand(NOISES, channels, height, width).contiguous()
