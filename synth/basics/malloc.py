"""Memory that tensors free stays with the process, where the C library is glibc.

It would hand that of large tensors back to the system at once, which clears each page anew for the next: one core spent a fifth of
a LeNet5's synthesis on it (batches of 500), and a tenth of a ResNet-20's training (batches of 128).
"""

from __future__ import annotations

import ctypes
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # their numbers in glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes; glibc takes no more
NEVER = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """For the rest of this process's life. Returns whether the C library does it; no other is asked."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(TRIM_THRESHOLD, NEVER))
