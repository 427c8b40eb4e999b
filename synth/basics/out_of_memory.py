"""What a device's memory doesn't hold is computed in smaller batches, and only then: another size may change the last bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from synth.basics.errors import UserError

T = TypeVar("T")

SMALLEST_BATCH = 4  # that settings are halved to
CURE = "use another --device, or a GPU that nobody else uses"


def by_settings(make: Callable[[Any], T], settings: Any) -> T:
    """`make` of the settings, made again with half of their batch as long as the device's memory doesn't hold it.

    Raises UserError where it doesn't hold the smallest batch.
    """
    while (made := unless_out_of_memory(make, settings)) is None:
        if settings.batch_size < 2 * SMALLEST_BATCH:
            raise UserError(f"the device's memory doesn't hold {settings.batch_size} images: {CURE}")
        settings = dataclasses.replace(settings, batch_size=settings.batch_size // 2)
    return made


def by_rows(compute: Callable[..., Tensor], batch_size: int, *tensors: Tensor) -> Tensor:
    """`compute` of so many rows of the tensors at a time, put together; of half as many where the device's memory doesn't hold them.

    Raises UserError where it doesn't hold one.
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
    """What `make` returns of the arguments; None where the device's memory ran out, whose unused part is given back then."""
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
    """MPS has no kind of error of its own for it."""
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)
