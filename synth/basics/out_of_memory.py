"""Batches that fit into memory: predicted by measuring, and halved where the memory runs out all the same.

Only a batch that does not fit becomes smaller, because another batch size may change the last bits, or the content.
"""

from __future__ import annotations

import dataclasses
import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from synth.basics.byte_sizes import in_gib
from synth.basics.errors import UserError
from synth.basics.free_memory import free_memory
from synth.basics.malloc import release_freed_memory

if TYPE_CHECKING:
    from torch import Tensor

    from synth.basics.memory_need import Need

T = TypeVar("T")

SMALLEST_BATCH = 4  # batches are not halved below this
# Of the free memory that a prediction may fill. The rest is for the buffers inside kernels, which are not counted, and
# for the gaps between tensors: with EfficientNet-Lite0 they add 11 % to a training step of 32 images, and 51 % to one
# of 8, whose tensors are smaller than the C library's pages of 32 MiB.
SHARE = 0.6
CURE = "free memory, raise that limit, or use another --device"
SIGNS = (  # of errors without a class of their own
    "out of memory",  # CUDA, MPS
    "can't allocate memory",  # PyTorch on a CPU
    "not enough memory",
    "cannot allocate memory",
    "std::bad_alloc",
    "can't start new thread",  # a stack of 8 MiB and a heap of 64 MiB need address space
    "could not create a primitive",  # oneDNN has no memory for a kernel or its buffers
    "could not create a memory",
    "failed to map segment from shared object",  # a library that is loaded
    "_alloc_failed",  # cuBLAS, cuDNN
)


def by_settings(make: Callable[[Any], T], settings: Any) -> T:
    """The result of `make(settings)`. Each time that the memory runs out, half the batch size is tried.

    Raises UserError if the memory does not hold the smallest batch.
    """
    while (made := unless_out_of_memory(make, settings)) is None:
        if settings.batch_size < 2 * SMALLEST_BATCH:
            raise UserError(f"the memory does not hold {settings.batch_size} images ({which_memory()}): {CURE}")
        settings = dataclasses.replace(settings, batch_size=settings.batch_size // 2)
    return made


def fitted(settings: Any, need: Need, device: str, images: int | None = None) -> Any:
    """The settings, with the batch halved until it is expected to fit into a share of the free memory.

    Args:
        need: what a batch takes.
        images: the most images that can come together, if that is fewer than a batch.
    """
    most = most_rows(need, device)
    while min(settings.batch_size, images or settings.batch_size) > most and settings.batch_size >= 2 * SMALLEST_BATCH:
        settings = dataclasses.replace(settings, batch_size=settings.batch_size // 2)
    return settings


def surely_fits(most_bytes: int, device: str) -> bool:
    """Whether an upper bound of what a batch takes is in the share of the free memory, so that nothing is measured."""
    return most_bytes < SHARE * free_memory(device).size


def require_memory(size: int, what: str, cure: str, device: str) -> None:
    """Raise UserError if `what` of this size is larger than the share of the free memory."""
    free = free_memory(device)
    if size > SHARE * free.size:
        raise UserError(
            f"{what} would take {in_gib(size)}, and of the {in_gib(free.size)} of free memory ({free.limit}) "
            f"{SHARE:.0%} may be filled: {cure}"
        )


def require_room(size: int, copies: int, what: str, cure: str, device: str) -> None:
    """As `require_memory`, for something on the device of which the processor's memory holds copies for a while."""
    if device == "cpu":
        require_memory((1 + copies) * size, what, cure, device)
        return
    require_memory(size, what, cure, device)
    require_memory(copies * size, what, cure, "cpu")


def largest_with_copies(copies: int, device: str) -> float:
    """The bytes that `require_room` allows."""
    own = SHARE * free_memory(device).size
    return own / (1 + copies) if device == "cpu" else min(own, SHARE * free_memory("cpu").size / copies)


def most_rows(need: Need, device: str) -> int:
    """The most images that are expected to fit into a share of the free memory; may be 0."""
    room = SHARE * free_memory(device).size - need.fixed
    return sys.maxsize if not need.each else max(0, int(room // need.each))


def by_rows(compute: Callable[..., Tensor], batch_size: int, *tensors: Tensor) -> Tensor:
    """The results of `compute` on `batch_size` rows of the tensors at a time, concatenated.

    Where the memory runs out, the rest is computed with half as many rows at a time. Raises UserError if the memory
    does not hold one row.
    """
    import torch

    parts: list[Tensor] = []
    start = 0
    while start < len(tensors[0]) or not parts:
        rows = [tensor[start : start + batch_size] for tensor in tensors]
        part = unless_out_of_memory(compute, *rows)
        if part is not None:
            parts.append(part)
            start += batch_size
        elif len(rows[0]) <= 1:
            raise UserError(f"the memory does not hold one image ({which_memory()}): {CURE}")
        else:
            batch_size = len(rows[0]) // 2
    return torch.cat(parts)


def unless_out_of_memory(make: Callable[..., T], *arguments: Any) -> T | None:
    """The result of `make(*arguments)`; None if the memory ran out. In that case unused memory is released."""
    try:
        return make(*arguments)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    import torch

    release_freed_memory()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    return None


@contextmanager
def memory_in_words() -> Iterator[None]:
    """Raise UserError, with the cause and the cure in one line, where the memory runs out inside the `with` block."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return
    # Outside of `except`, the tensors of what failed are free again.
    raise UserError(f"the memory ran out ({which_memory()}): {CURE}, or use a smaller batch")


def which_memory() -> str:
    """The limit that leaves this process least memory, in words: of the GPU if the process computes on one."""
    torch = sys.modules.get("torch")
    free = free_memory("cuda" if torch and torch.cuda.is_initialized() else "cpu")
    return f"{free.limit}, and {in_gib(max(0, free.size))} is free"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the host or on a device. Errors without a class of their own are known by their text.

    Torch is not loaded for this.
    """
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, RuntimeError | ImportError) and any(sign in text for sign in SIGNS)
