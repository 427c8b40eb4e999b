"""The device that a process computes on, and how the process is set up for it."""

from __future__ import annotations

import torch

from synth.basics.errors import UserError
from synth.basics.malloc import keep_freed_memory


def local_device(device: str) -> str:
    """The device that `auto` means on this machine, or the given one. Raises UserError if it is not available."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[device]:
        raise UserError(f"this machine has no {device} device: use --device cpu")
    return device


def machine(device: str, threads: int | None) -> str:
    """Set up this process's CPU threads and use of memory. Returns the device that `auto` means.

    On CUDA, convolutions use only the algorithms that give the same bytes each time, as in synthesis.
    """
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    there = local_device(device)
    if there == "cuda":
        torch.backends.cudnn.deterministic = True
    return there
