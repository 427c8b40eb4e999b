"""Keep freed memory in the process, where the C library is glibc.

By default glibc returns the memory of large tensors to the system at once, and the system clears each page before the
next use. On one core this took a fifth of the time of synthesis from LeNet5 (batches of 500), and a tenth of the time
of training ResNet-20 (batches of 128).
"""

from __future__ import annotations

import ctypes
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # the numbers of these options in glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes; the largest value that glibc accepts
NEVER = 2**31 - 1


@cache
def c_function(name: str) -> ctypes._NamedFuncPointer | None:
    """The C library's function of this name; None where there is none (macOS, musl, Windows, an older glibc)."""
    try:
        function: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None
    return function


@cache
def keep_freed_memory() -> bool:
    """Keep freed memory until this process ends. Returns whether the C library can do so; only glibc is asked."""
    mallopt = c_function("mallopt")
    return bool(mallopt and mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(TRIM_THRESHOLD, NEVER))


def release_freed_memory() -> None:
    """Give freed memory back to the system, where the C library can: what one thread kept, another may need."""
    if trim := c_function("malloc_trim"):
        trim(0)
