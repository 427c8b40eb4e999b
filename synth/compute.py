"""How a teacher is computed on a device: arithmetic and layout in memory. Chosen by rule, never by a timing:
the choice is part of what determines a shard's bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synth.objectives import forward_flop, watch_features
from synth.settings import ComputeSettings
from synth.teacher import Classifier

LARGE_FLOP = 30e6  # of an image's forward pass; below it a CPU gains nothing by bfloat16 or channels-last


@dataclass(frozen=True)
class Compute:
    """The choice, for one teacher on its device."""

    net: nn.Module
    bfloat16: bool
    channels_last: bool

    @contextmanager
    def teacher_net(self, teacher: Classifier) -> Iterator[Callable[[Tensor], Tensor]]:
        """Normalised images to float32 logits, within a `with` block."""
        if self.channels_last:
            self.net.to(memory_format=torch.channels_last)
        device = teacher.mean.device.type

        def logits_of(x_norm: Tensor) -> Tensor:
            if self.channels_last:
                x_norm = x_norm.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device, torch.bfloat16) if self.bfloat16 else nullcontext():
                return self.net(x_norm).float()

        try:
            yield logits_of
        finally:
            if self.channels_last:
                self.net.to(memory_format=torch.contiguous_format)

    def features(self, wanted: bool) -> Any:
        """The last linear layer's inputs, recorded inside a `with` block where they are wanted."""
        return watch_features(self.net) if wanted else nullcontext([])


def choose(settings: ComputeSettings, teacher: Classifier) -> Compute:
    """The settings with `auto` decided.

    On a GPU both pay for every network. On a CPU, for networks of more than 30 MFLOP an image, and bfloat16 only where
    the processor multiplies it (AVX-512 BF16, AMX).
    """
    device = teacher.mean.device.type
    gpu = device == "cuda"
    large = gpu or forward_flop(teacher.net, teacher.card.input_shape) >= LARGE_FLOP
    channels_last = settings.layout == "channels-last" or (settings.layout == "auto" and large and device != "mps")
    bfloat16 = settings.precision == "bfloat16" or (settings.precision == "auto" and large and has_bfloat16(device))
    return Compute(teacher.net, bfloat16, channels_last)


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 at more than float32's speed."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
