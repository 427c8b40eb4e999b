"""How long a training will take, measured on a few images before it begins."""

from __future__ import annotations

import time
from collections.abc import Callable

from synth.basics.progress import format_seconds

FEW = 4  # images
LONG = 0.2  # seconds; a step of few images that takes so long shows the cost per image
WORTH_SAYING = 10.0  # seconds


def words_for(steps: int, batch_size: int, device: str, step: Callable[[int], object]) -> str:
    """`600 steps of 200 images, about 3 min 05 s`, without the time if it is below ten seconds.

    The time is that of this machine and this many threads, and so it is said for a training on a CPU only.

    Args:
        step: takes one training step on this many images.
    """
    words = f"{steps:,} steps of {batch_size} images"
    seconds = seconds_per_step(batch_size, step) * steps if device == "cpu" else 0.0
    return words if seconds < WORTH_SAYING else f"{words}, about {format_seconds(seconds)}"


def seconds_per_step(batch_size: int, step: Callable[[int], object]) -> float:
    """The seconds of a training step. Steps of large images are measured on few of them."""
    step(FEW)  # pays for what happens only once
    for images in (FEW, batch_size):
        started = time.perf_counter()
        step(images)
        seconds = time.perf_counter() - started
        if seconds > LONG:
            break
    return seconds / images * batch_size
