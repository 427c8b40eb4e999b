"""How much memory decoded images may take, and how many shards this is. No torch here: the command line reads it."""

from __future__ import annotations

import math
import os
import re
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synth.basics.errors import UsageError

if TYPE_CHECKING:
    from unlearn.samples.runs import Runs

DEFAULT = "25%"
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(%|[KMG]i?B|B)", re.IGNORECASE)
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
MOST_READERS = 8
SHARE_OF_READERS = 0.25  # of the memory, for shards that are being decoded


def bytes_of(text: str) -> int:
    """The bytes that a text such as 1GiB, 500MB or 25% stands for. A share is of the memory that this process may take.

    Raises UsageError if the text is no amount, or if it is nothing.
    """
    match = AMOUNT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--memory {text[:40]!r} is not an amount of memory: write it like 2GiB, 500MB or 25%")
    number, unit = float(match[1]), match[2].upper()
    if unit == "%" and not 0 < number <= 100:
        raise UsageError(f"--memory {text} is not a share: give one above 0% and at most 100%")
    amount = number / 100 * memory_limit() if unit == "%" else number * UNITS[unit]
    if not 1 <= amount < 2**63:
        raise UsageError(f"--memory {text} is not an amount of memory that a machine has: give one such as 2GiB")
    return int(amount)


def memory_limit() -> int:
    """The bytes that this process may take: the machine's memory, or less in a container or under `ulimit -v`."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    for path in map(Path, CONTAINER_LIMITS):
        if path.is_file() and (written := path.read_text().strip()).isdigit():
            limits.append(int(written))
    return min(limits)


@dataclass(frozen=True)
class Share:
    """How the memory is used."""

    window: int  # shards whose images are shuffled together
    slots: int  # shards in memory at once; as many as there are if the whole run fits
    readers: int  # shards that are decoded at once


def share_memory(runs: Runs, memory: int, window: int | None = None) -> Share:
    """How many shards are shuffled together, held, and decoded at once.

    If the whole run fits, it is one window. Otherwise two windows fit: one that is trained on, and one that is decoded
    meanwhile. A `window` that is given is kept, whatever the memory: the student depends on it.
    """
    each = bytes_of_shard(runs)
    readers = max(1, min(MOST_READERS, len(os.sched_getaffinity(0)), int(SHARE_OF_READERS * memory / (2 * each))))
    fitting = max(2, (memory - 2 * readers * each) // each)
    if window is None:
        window = runs.planned if runs.planned * each <= memory else fitting // 2
    if window >= runs.planned:
        return Share(runs.planned, runs.planned, readers)
    return Share(window, window + max(1, min(window, fitting - window)), readers)


def bytes_of_shard(runs: Runs) -> int:
    """The bytes of the largest shard, decoded, with its answers and recipes."""
    card, samples = runs.card, 1 + runs.most_views
    of_image = math.prod(card.image_shape) + 2 * 8 + samples * (2 * card.num_classes + 4 * 11 + 2)
    return runs.most_images * of_image
