"""A network with its card. It takes images in [0, 1] and returns logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from synth.basics.errors import UsageError
from synth.checkpoint.building import build
from synth.checkpoint.card import ModelCard


@dataclass(frozen=True)
class Arithmetic:
    """How a network's layers are computed (see arithmetic.py). Weights, images and losses stay float32."""

    bfloat16: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        return ("bfloat16" if self.bfloat16 else "float32") + (", channels-last" if self.channels_last else "")


class Classifier(nn.Module):
    """A network with its card. It takes images in [0, 1], (N, C, H, W), normalises them, and returns logits (N, K)."""

    mean: Tensor
    std: Tensor
    arithmetic = Arithmetic()

    def __init__(self, net: nn.Module, card: ModelCard, digest: str | None = None) -> None:
        super().__init__()
        self.net = net
        self.card = card
        self.digest = digest
        self.register_buffer("mean", torch.tensor(card.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(1, -1, 1, 1), persistent=False)

    @classmethod
    def untrained(cls, card: ModelCard, seed: int) -> Classifier:
        """A newly initialised network for the card. The weights depend on the card and the seed only."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(build_for(card), card)

    def forward(self, x_unit: Tensor) -> Tensor:
        return self.logits((x_unit - self.mean) / self.std)

    def logits(self, x_norm: Tensor) -> Tensor:
        """Logits (N, K) of normalised images, computed in the chosen arithmetic."""
        if self.arithmetic.channels_last:
            x_norm = x_norm.contiguous(memory_format=torch.channels_last)
        if not self.arithmetic.bfloat16:
            return self.net(x_norm)
        with torch.autocast(x_norm.device.type, torch.bfloat16):
            return self.net(x_norm).float()

    def compute_by(self, arithmetic: Arithmetic) -> Classifier:
        """Set the arithmetic, and put the weights into its layout."""
        self.arithmetic = arithmetic
        self.net.to(memory_format=torch.channels_last if arithmetic.channels_last else torch.contiguous_format)
        return self

    @cached_property
    def flop(self) -> int:
        """Floating-point operations of one image's forward pass. A multiplication and an addition count as two."""
        from torch.utils.flop_counter import FlopCounterMode

        x_norm = torch.zeros(2, *self.card.input_shape, device=self.mean.device)
        with FlopCounterMode(display=False) as counter, torch.no_grad(), untouched(self.net):
            self.net(x_norm)
        return counter.get_total_flops() // 2

    def freeze(self) -> Classifier:
        """Set evaluation mode, and stop gradients to the weights."""
        return self.eval().requires_grad_(False)


def build_for(card: ModelCard) -> nn.Module:
    """An untrained network for the card. Raises UsageError if it cannot be built."""
    return build(card.architecture, card.input_shape[0], card.num_classes, card.input_shape[1], card.width)


def expected_state(card: ModelCard) -> dict[str, Tensor]:
    """The state dict of the card's network, without memory for its values. Raises UsageError if it cannot be built."""
    with torch.device("meta"):
        return build_for(card).state_dict()


@contextmanager
def untouched(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the `with` block. Each module's own mode and the random state are restored afterwards."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, training in modes:
            module.training = training


@torch.no_grad()
def check_forward(model: Classifier, cure: str) -> None:
    """Raise UsageError unless the network turns two black images of its card's shape into logits (2, K).

    Neither the model nor any random state changes.
    """
    card = model.card
    x_unit = torch.zeros(2, *card.input_shape, device=model.mean.device)
    try:
        with untouched(model):
            logits = model(x_unit)
    except Exception as error:  # networks of torchvision and of users raise any error here
        lines = str(error).splitlines() or [type(error).__name__]
        raise UsageError(
            f"{card.architecture} does not accept images {list(card.input_shape)} ({lines[0].rstrip('.')}): {cure}"
        ) from error
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != [2, card.num_classes]:
        raise UsageError(
            f"{card.architecture} returns {shape} for 2 images {list(card.input_shape)}, not logits [2, "
            f"{card.num_classes}]: {cure}"
        )


@torch.no_grad()
def predict(model: nn.Module, x_unit: Tensor, batch_size: int = 1000) -> Tensor:
    """Logits (N, K), float32 on the CPU, of float images in [0, 1] or uint8 images, computed batch by batch."""
    device = next(model.parameters()).device
    logits = [model(to_unit(batch.to(device))).float().cpu() for batch in x_unit.split(batch_size)]
    return torch.cat(logits)


def to_unit(images: Tensor) -> Tensor:
    """uint8 images as floats in [0, 1]; float images are returned unchanged."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def to_uint8(x_unit: Tensor) -> Tensor:
    """Images in [0, 1] rounded to 8-bit pixels, as in a PNG."""
    return (x_unit.detach().clamp(0, 1) * 255).round().to(torch.uint8)
