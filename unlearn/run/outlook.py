"""What a run is about to do, in one line before it begins."""

from __future__ import annotations

from typing import Any

from synth.basics.progress import counted

TIME = "the time is known after the first steps"


def outlook(architecture: str, steps: int, done: int, settings: Any, images: int | None) -> str:
    """Such as `trains lenet5 for 4,000 steps of 128 images each, from 7,500 images; the time is known after ...`.

    Args:
        steps: of the whole run.
        done: steps of an earlier process, which this one goes on from.
        settings: the method's; those of some methods have no batch size.
        images: that the run learns from; None if it learns from none that are stored.
    """
    batch = getattr(settings, "batch_size", None)
    of = f" of {counted(batch, 'image')} each" if batch else ""
    source = f", from {counted(images, 'image')}" if images else ""
    after = f", after {done:,} steps that are done" if done else ""
    return f"trains {architecture} for {counted(steps - done, 'step')}{of}{source}{after}; {TIME}"
