"""Smaller batches for a device without enough memory, and only then: another batch size may change the last bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from synth.basics.errors import UserError

T = TypeVar("T")

SMALLEST_BATCH = 4  # batches are not halved below this
CURE = "use another --device, or a GPU that nobody else uses"


def by_settings(make: Callable[[Any], T], settings: Any) -> T:
    """The result of `make(settings)`. Each time that the device's memory runs out, half the batch size is tried.

    Raises UserError if the memory does not hold the smallest batch.
    """
    while (made := unless_out_of_memory(make, settings)) is None:
        if settings.batch_size < 2 * SMALLEST_BATCH:
            raise UserError(f"the device's memory doesn't hold {settings.batch_size} images: {CURE}")
        settings = dataclasses.replace(settings, batch_size=settings.batch_size // 2)
    return made


def by_rows(compute: Callable[..., Tensor], batch_size: int, *tensors: Tensor) -> Tensor:
    """The results of `compute` on `batch_size` rows of the tensors at a time, concatenated.

    Where the device's memory runs out, the rest is computed with half as many rows at a time. Raises UserError if the
    memory does not hold one row.
    """
    parts: list[Tensor] = []
    start = 0
    while start < len(tensors[0]) or not parts:
        rows = [tensor[start : start + batch_size] for tensor in tensors]
        part = unless_out_of_memory(compute, *rows)
        if part is not None:
            parts.append(part)
            start += batch_size
        elif len(rows[0]) <= 1:
            raise UserError(f"the device's memory doesn't hold one image: {CURE}")
        else:
            batch_size = len(rows[0]) // 2
    return torch.cat(parts)


def unless_out_of_memory(make: Callable[..., T], *arguments: Any) -> T | None:
    """The result of `make(*arguments)`; None if the device's memory ran out. In that case unused memory is released."""
    try:
        return make(*arguments)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    return None


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device ran out of memory. MPS raises no error class of its own, so its message is read."""
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)
