"""A network with its card. It takes images in [0, 1] and returns logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from synth.basics.errors import UsageError, first_line
from synth.basics.memory_need import FEW, Need, need_of
from synth.basics.out_of_memory import by_rows, most_rows, surely_fits
from synth.checkpoint.building import build, names_code
from synth.checkpoint.card import ModelCard
from synth.checkpoint.masses import masses_from
from synth.checkpoint.outputs import logits_from
from synth.checkpoint.without_memory import WithoutMemory


@dataclass(frozen=True)
class Arithmetic:
    """How a network's layers are computed (see arithmetic.py). Weights, images and losses stay float32."""

    bfloat16: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        return ("bfloat16" if self.bfloat16 else "float32") + (", channels-last" if self.channels_last else "")


class Classifier(nn.Module):
    """A network with its card. It takes images in [0, 1], (N, C, H, W), normalises them, and returns logits (N, K).

    The classes of a regressor are the bins of its target, and its logits those of the bins' masses.
    """

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
        """A newly initialised network for the card. The weights depend on the card and the seed only.

        Raises UsageError if the user's own code gives the network the same weights for another seed.
        """
        net = seeded(card, seed)
        if names_code(card.architecture):
            refuse_loaded_weights(net, seeded(card, seed + 1), card.architecture)
        return cls(net, card)

    def forward(self, x_unit: Tensor) -> Tensor:
        return self.logits((x_unit - self.mean) / self.std)

    def logits(self, x_norm: Tensor) -> Tensor:
        """Logits (N, K) of normalised images, computed in the chosen arithmetic."""
        if self.arithmetic.channels_last:
            x_norm = x_norm.contiguous(memory_format=torch.channels_last)
        if not self.arithmetic.bfloat16:
            logits = logits_from(self.net(x_norm), self.card.wiring)
        else:
            with torch.autocast(x_norm.device.type, torch.bfloat16):
                logits = logits_from(self.net(x_norm), self.card.wiring).float()
        return logits if self.card.target is None else masses_from(logits, self.card.target)

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

    @cached_property
    def forward_need(self) -> Need:
        """The memory that a forward pass takes without gradients.

        Counted twice: oneDNN copies the maps of a layer into an order of its own, and these copies are not counted.
        """

        @torch.no_grad()
        def forward(images: int) -> None:
            with untouched(self.net):
                self(torch.zeros(images, *self.card.input_shape, device=self.mean.device))

        need = need_of(forward, str(self.mean.device))
        return Need(2 * need.fixed, 2 * need.each)

    def freeze(self) -> Classifier:
        """Set evaluation mode, and stop gradients to the weights."""
        return self.eval().requires_grad_(False)


def build_for(card: ModelCard) -> nn.Module:
    """An untrained network for the card. Raises UsageError if it cannot be built."""
    channels, *size = card.input_shape
    return build(card.architecture, channels, card.outputs, (size[0], size[1]), card.width, card.wiring.config)


def seeded(card: ModelCard, seed: int) -> nn.Module:
    """An untrained network for the card, with the initial weights of this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_for(card)


def refuse_loaded_weights(net: nn.Module, another: nn.Module, architecture: str) -> None:
    """Raise UsageError if two networks of different seeds have the same weights. `another` is not changed.

    A builder that loads trained weights would otherwise hand them to a student, which must start from random ones.
    Constant weights, such as the ones and zeros of batch norm, are the same with every seed.
    """
    pairs = zip(net.parameters(), another.parameters(), strict=True)
    drawn = [(a, b) for a, b in pairs if a.numel() > 1 and not bool((a == a.flatten()[0]).all())]
    if drawn and all(torch.equal(a, b) for a, b in drawn):
        raise UsageError(
            f"{architecture} builds the same weights with every seed, so it loads trained weights or sets a seed "
            "itself, and a new network would start from them: name a function that only builds the network"
        )


def expected_state(card: ModelCard) -> dict[str, Tensor]:
    """The state dict of the card's network, without memory for its weights. Raises UsageError if it cannot be built."""
    try:
        with WithoutMemory():
            return build_for(card).state_dict()
    except UsageError:
        raise
    except Exception:  # some constructors of other packages compute with their weights
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
        raise UsageError(
            f"{card.architecture} does not accept images {list(card.input_shape)} ({first_line(error)}): {cure}"
        ) from error
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != [2, card.num_classes]:
        raise UsageError(
            f"{card.architecture} returns {shape} for 2 images {list(card.input_shape)}, not logits [2, "
            f"{card.num_classes}]: {cure}"
        )


PIXELS_AT_ONCE = 2**21  # of small images, and of all on a GPU: 42 images of 224 x 224
# On a CPU, 227 images of 96 x 96 take EfficientNet-Lite0 2.2 times as long as the same in batches of 28, whose maps
# stay in the caches.
LARGE_PIXELS_AT_ONCE = 2**18
LARGE_SIDE = 64  # pixels
FEWEST_AT_ONCE = 16
LARGEST_GROWTH = 1000  # times the memory of its images that a network's maps take at most in a forward pass
LARGEST_STEP = 10  # bytes per floating-point operation of a forward pass that a training step takes at most


def predict(model: nn.Module, x_unit: Tensor, batch_size: int = 1000) -> Tensor:
    """Logits (N, K), float32 on the CPU, of float images in [0, 1] or uint8 images, computed batch by batch.

    Batches of large images are smaller (`rows_at_once`). Raises UserError if the memory does not hold one image.
    """
    device = next(model.parameters()).device

    @torch.no_grad()
    def logits(rows: Tensor) -> Tensor:
        return model(to_unit(rows.to(device))).float().cpu()

    return by_rows(logits, rows_at_once(model, x_unit, batch_size), x_unit)


def rows_at_once(model: nn.Module, x_unit: Tensor, batch_size: int = 1000) -> int:
    """How many of the images go through the network at once, at most `batch_size`.

    The number follows from the images' size and the kind of device, so that it is the same on every machine, because
    it may change the last bits of the answers. Only where the memory does not hold so many are there fewer.
    """
    device = next(model.parameters()).device
    large = device.type == "cpu" and min(x_unit.shape[-2:]) >= LARGE_SIDE
    pixels = LARGE_PIXELS_AT_ONCE if large else PIXELS_AT_ONCE
    rows = min(batch_size, max(FEWEST_AT_ONCE, pixels // max(1, x_unit.shape[-2:].numel())))
    rows = max(1, min(rows, len(x_unit)))
    if not isinstance(model, Classifier) or rows <= 2 * FEW:
        return rows
    if surely_fits(LARGEST_GROWTH * 4 * rows * x_unit[0].numel(), str(device)):
        return rows
    return max(1, min(rows, most_rows(model.forward_need, str(device))))


def seen_by(model: Classifier, x_norm: Tensor, other: Classifier) -> Tensor:
    """Images (N, C, H, W) that were normalised for another network, normalised for this one."""
    if (model.card.mean, model.card.std) == (other.card.mean, other.card.std):
        return x_norm
    return (x_norm * other.std + other.mean - model.mean) / model.std


def to_unit(images: Tensor) -> Tensor:
    """uint8 images as floats in [0, 1]; float images are returned unchanged."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def to_uint8(x_unit: Tensor) -> Tensor:
    """Images in [0, 1] rounded to 8-bit pixels, as in a PNG."""
    return (x_unit.detach().clamp(0, 1) * 255).round().to(torch.uint8)
