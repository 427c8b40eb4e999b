"""How a network is computed on a device: arithmetic and layout in memory.

A rule makes the choice, never a timing, because the choice affects the bytes of shards and students.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from synth.basics.settings import ComputeSettings
from synth.checkpoint.classifier import Arithmetic, Classifier
from synth.checkpoint.depthwise import depthwise_in_float32
from synth.checkpoint.pooling import quick_pools

LARGE_FLOP = 30e6  # per image and forward pass; for smaller networks a CPU gains nothing from bfloat16 or channels-last


@contextmanager
def computed(model: Classifier, settings: ComputeSettings) -> Iterator[None]:
    """The model uses the arithmetic of the settings inside the `with` block."""
    before, chosen = model.arithmetic, choose(settings, model)
    model.compute_by(chosen)
    slow = chosen.bfloat16 and model.mean.device.type == "cpu"
    try:
        with depthwise_in_float32(model.net) if slow else nullcontext():
            yield
    finally:
        model.compute_by(before)


@contextmanager
def forward_only(model: Classifier) -> Iterator[None]:
    """The model computes in float32 inside the `with` block, on CPUs channels-last, with quick pools.

    Without a backward pass a small network gains by both: a LeNet5 takes half of the time on one core.
    """
    before, cpu = model.arithmetic, model.mean.device.type == "cpu"
    model.compute_by(Arithmetic(channels_last=cpu))
    try:
        with quick_pools(model.net) if cpu else nullcontext():
            yield
    finally:
        model.compute_by(before)


def choose(settings: ComputeSettings, model: Classifier) -> Arithmetic:
    """The arithmetic that the settings ask for, with `auto` decided.

    On a GPU, `auto` takes bfloat16 and channels-last for every network. On a CPU it takes channels-last for networks
    above 30 MFLOP per image, and bfloat16 too where the processor multiplies it in hardware (AVX-512 BF16).
    """
    device = model.mean.device.type
    gpu = device == "cuda"
    large = gpu or model.flop >= LARGE_FLOP
    channels_last = settings.layout == "channels-last" or (settings.layout == "auto" and large and device != "mps")
    bfloat16 = settings.precision == "bfloat16" or (settings.precision == "auto" and large and has_bfloat16(device))
    return Arithmetic(bfloat16, channels_last)


def measured(model: Classifier, device: str = "cpu") -> Classifier:
    """The model on the device, for measurements: in float32, in the layout that `auto` chooses."""
    model.to(device)
    return model.compute_by(choose(ComputeSettings(precision="float32"), model))


def arithmetic_note(settings: ComputeSettings, model: Classifier) -> dict[str, str]:
    """Metadata that records the chosen arithmetic, as `auto` may differ between machines; empty for plain float32."""
    chosen = choose(settings, model)
    return {} if chosen == Arithmetic() else {"arithmetic": str(chosen)}


def cpu_capabilities() -> Mapping[str, Any]:
    """The processor's instruction sets by name; empty where this version of PyTorch cannot name them."""
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and bool(cpu_capabilities().get("avx512_bf16", False))
