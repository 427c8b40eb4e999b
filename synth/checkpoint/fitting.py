"""The batch that a synthesis starts with: that of the settings, or the largest half of it that is expected to fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

from synth.basics.memory_need import need_of
from synth.basics.out_of_memory import fitted, surely_fits
from synth.checkpoint.classifier import LARGEST_STEP, Classifier

decided: WeakKeyDictionary[Classifier, dict[Hashable, int]] = WeakKeyDictionary()  # batch sizes


def fitting(
    teacher: Classifier,
    settings: Any,
    brief: Callable[[Any, int], Any],
    step: Callable[[Any, int], object],
    *,
    most: int | None = None,
    key: Hashable = None,
) -> Any:
    """The settings, with the batch halved until it is expected to fit into memory.

    A process measures and decides once per teacher, settings and key, so that the shards of a worker have one batch
    size. Nothing is measured where even a network with unusually large maps would fit.

    Args:
        brief: gives the settings of one step on this many images.
        step: takes this step with these settings, on this many images. It leaves no trace in the run.
        most: images that come together at most; None if that is a batch.
    """
    device, few = str(teacher.mean.device), smallest_batch(settings)
    images = min(settings.batch_size, most or settings.batch_size)
    if images <= 2 * few or surely_fits(LARGEST_STEP * teacher.flop * images, device):
        return settings
    known, place = decided.setdefault(teacher, {}), (key, settings, images)
    if place not in known:
        need = need_of(lambda count: step(brief(settings, count), count), device, few)
        known[place] = fitted(settings, need, device, images).batch_size
    return dataclasses.replace(settings, batch_size=known[place])


def smallest_batch(settings: Any) -> int:
    """The fewest images that the settings accept as a batch."""
    limits = next(field.metadata for field in dataclasses.fields(settings) if field.name == "batch_size")
    return max(2, limits.get("at_least", 2))
