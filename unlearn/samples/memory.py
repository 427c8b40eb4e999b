"""How much memory decoded images may take, and how many shards this is. No torch here: the command line reads it."""

from __future__ import annotations

import math
import os
import re
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synth.basics.byte_sizes import parse_bytes
from synth.basics.errors import UsageError
from synth.basics.free_memory import control_groups
from synth.shards.view_recipes import COLUMNS

if TYPE_CHECKING:
    from unlearn.samples.runs import Runs

DEFAULT = "25%"
PERCENT = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%\s*")
MOST_READERS = 8
SHARE_OF_READERS = 0.25  # of the memory, for shards that are being decoded


def bytes_of(text: str) -> int:
    """The bytes that a text such as 1GiB, 500MB or 25% stands for. A share is of the memory that this process may take.

    Raises UsageError if the text is no amount, or if it is nothing.
    """
    if percent := PERCENT.fullmatch(text):
        if not 0 < float(percent[1]) <= 100:
            raise UsageError(f"--memory {text.strip()} is not a share: give one above 0% and at most 100%")
        return int(float(percent[1]) / 100 * memory_limit())
    try:
        return parse_bytes(text)
    except ValueError:
        raise UsageError(f"--memory {text[:40]!r} is not an amount of memory: write it like 2GiB or 25%") from None


def memory_limit() -> int:
    """The bytes that this process may take: the machine's memory, or less in a container or under `ulimit -v`.

    Not what is free at the moment: the same command should give the same windows, and so the same student.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min([*limits, *(limit for limit, _ in control_groups())])


@dataclass(frozen=True)
class Share:
    """How the memory is used."""

    window: int  # shards whose images are shuffled together
    slots: int  # shards in memory at once; as many as there are if the whole run fits
    readers: int  # shards that are decoded at once


def divide_memory(runs: Runs, memory: int, window: int | None = None) -> Share:
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
    of_image = math.prod(card.image_shape) + 2 * 8 + samples * (2 * card.num_classes + 4 * COLUMNS + 2)
    return runs.most_images * of_image
