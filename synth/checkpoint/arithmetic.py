"""How a network is computed on a device: arithmetic and layout in memory. Chosen by rule, never by a timing:
the choice is part of what determines a shard's bytes and a student's weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from synth.basics.settings import ComputeSettings
from synth.checkpoint.classifier import Arithmetic, Classifier

LARGE_FLOP = 30e6  # of an image's forward pass; below it a CPU gains nothing by bfloat16 or channels-last


@contextmanager
def computed(model: Classifier, settings: ComputeSettings) -> Iterator[None]:
    """The model works in the arithmetic of the settings inside the `with` block, and as before after it."""
    before = model.arithmetic
    model.compute_by(choose(settings, model))
    try:
        yield
    finally:
        model.compute_by(before)


def choose(settings: ComputeSettings, model: Classifier) -> Arithmetic:
    """The settings with `auto` decided.

    On a GPU both pay for every network. On a CPU, for networks of more than 30 MFLOP an image, and bfloat16 only where
    the processor multiplies it (AVX-512 BF16, AMX).
    """
    device = model.mean.device.type
    gpu = device == "cuda"
    large = gpu or model.flop >= LARGE_FLOP
    channels_last = settings.layout == "channels-last" or (settings.layout == "auto" and large and device != "mps")
    bfloat16 = settings.precision == "bfloat16" or (settings.precision == "auto" and large and has_bfloat16(device))
    return Arithmetic(bfloat16, channels_last)


def arithmetic_note(settings: ComputeSettings, model: Classifier) -> dict[str, str]:
    """The choice as it is noted beside what was made by it: where it is left open, each machine decides. Nothing of plain float32."""
    chosen = choose(settings, model)
    return {} if chosen == Arithmetic() else {"arithmetic": str(chosen)}


def cpu_capabilities() -> Mapping[str, Any]:
    """The processor's instruction sets by name; empty where this version of PyTorch cannot name them."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 at more than float32's speed."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and bool(cpu_capabilities().get("avx512_bf16", False))
