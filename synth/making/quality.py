"""The quality gate: images that miss a bound on the teacher's answers are generated again, up to a limit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from synth.basics.out_of_memory import by_rows
from synth.checkpoint.classifier import Classifier, predict
from synth.making.copies import share_recognised
from synth.making.gate import QualityGate
from synth.shards.index import GateCounts

# Large photographs are as clear from batches of ten as from larger ones (docs/results/bench-photo.md).
FEWEST_PHOTOS = 10
GATE_BATCH = 500  # images that the teacher judges at once
SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]  # in pixels


def passed(
    teacher: Classifier,
    labels: Tensor,
    make: Callable[[Tensor], Tensor],
    gate: QualityGate | None,
    fewest: int | None = None,
    read: Callable[[Tensor], Tensor] = lambda images: images,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Images of the labels, uint8 (N, C, H, W), and one note per image: its `tries`, and `missed` if every try failed.

    An image that missed to the end is its best try.

    Args:
        fewest: a further try makes at least so many images, the needed ones and some others, which are thrown away; a
            batch of very few classes would not have the statistics of training. None: it makes all of them.
        read: gives the pixels that a reader of the shard decodes, which are judged.
    """
    images = make(labels)
    if gate is None:
        return images, [{} for _ in labels]
    misses = shortfall(teacher, read(images), labels, gate)
    tries = torch.ones(len(labels), dtype=torch.long)
    for _ in range(gate.tries - 1):
        wanted = misses > 0
        if not wanted.any():
            break
        rows = with_others(wanted, len(labels) if fewest is None else fewest)
        again = make(labels[rows])
        found = shortfall(teacher, read(again), labels[rows], gate)
        better = wanted[rows] & (found < misses[rows])
        tries += wanted
        images[rows[better]], misses[rows[better]] = again[better], found[better]
    notes = [
        {"tries": n} | ({"missed": True} if miss else {})
        for n, miss in zip(tries.tolist(), (misses > 0).tolist(), strict=True)
    ]
    return images, notes


def with_others(wanted: Tensor, fewest: int) -> Tensor:
    """The numbers of the images that are wanted, (M,) in order, and of others from everywhere up to `fewest`.

    Args:
        wanted: bool (N,).
    """
    others = (~wanted).nonzero()[:, 0]
    count = min(len(others), max(0, fewest - int(wanted.sum())))
    fill = others[torch.arange(count) * len(others) // max(1, count)]
    return torch.cat([wanted.nonzero()[:, 0], fill]).sort().values


def counts_of(notes: list[dict[str, Any]]) -> GateCounts:
    """The sums over the notes of a shard's images."""
    return GateCounts(
        again=sum(note["tries"] - 1 for note in notes), missed=sum(note.get("missed", False) for note in notes)
    )


def shortfall(teacher: Classifier, images: Tensor, labels: Tensor, gate: QualityGate) -> Tensor:
    """How far each image misses the bounds, (N,): summed over the bounds, in their own units; 0 if it meets them
    all.
    """
    log_p = by_rows(partial(predict, teacher), GATE_BATCH, images).double().log_softmax(1)
    total = torch.zeros(len(images), dtype=torch.float64)
    if gate.confidence is not None:
        total += (gate.confidence - log_p.gather(1, labels[:, None])[:, 0].exp()).clamp_min(0)
    if gate.entropy is not None:
        total += (-(log_p.exp() * log_p).sum(1) - gate.entropy).clamp_min(0)
    if gate.agreement is not None:
        total += (gate.agreement - agreement(teacher, images, labels)).clamp_min(0)
    if gate.copies is not None:
        total += (gate.copies - share_recognised(teacher, images, labels)).clamp_min(0)
    return total


def agreement(teacher: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """For each image, the share of its eight shifts by one pixel that the teacher assigns to the wanted class, (N,)."""
    moved = (images.roll(shift, dims=(2, 3)) for shift in SHIFTS)
    votes = [by_rows(partial(predict, teacher), GATE_BATCH, x).argmax(1) == labels for x in moved]
    return torch.stack(votes).double().mean(0)
