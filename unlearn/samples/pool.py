"""The samples of a run's shards that passed the filters, in memory."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synth.basics.errors import HopelessError, UserError
from synth.shards.index import Index, find_index, read_index
from synth.shards.plan import Plan
from synth.shards.samples import Samples
from synth.shards.store import Store
from unlearn.samples.decoding import decoded
from unlearn.samples.filters import Filter, View, apply

SHARE_OF_MEMORY = 0.5


@dataclass(frozen=True)
class Batch:
    """Samples that passed the filters: uint8 images (N, C, H, W), classes (N,), teacher logits (N, K)."""

    images: Tensor
    labels: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str) -> Batch:
        return Batch(self.images.to(device), self.labels.to(device), self.logits.to(device))


def view_of(samples: Samples, plan: Plan) -> View:
    """What the filters see of a shard's samples."""
    images = np.array([int(key) // (1 + plan.blends) for key in samples.keys])
    partners = np.where(samples.partner_images < 0, images, samples.partner_images)
    arrays = (samples.logits, samples.labels, samples.partners, np.stack([images, partners], axis=1))
    logits, labels, partner_labels, sources = map(torch.from_numpy, arrays)
    return View(logits, labels, partner_labels, sources, len(plan.classes))


class ShardPool:
    """Grows shard by shard, in memory: 60,000 images of 32x32x3 take 184 MB."""

    def __init__(self, store: Store, filters: Mapping[str, Filter]) -> None:
        self.store = store
        self.filters = filters
        self.index = read_index(store)
        self.loaded: list[int] = []
        self.dropped: Counter[str] = Counter(dict.fromkeys(filters, 0))
        self.count = 0
        check_memory(self.index)
        self.rows = empty_rows(self.index)

    @property
    def share_loaded(self) -> float:
        """Of the planned shards, how many are here, 0 to 1."""
        return len(self.loaded) / self.index.card.plan.shards

    def __len__(self) -> int:
        return self.count

    def arrivals(self) -> Iterator[int]:
        """Load what has been published since, and yield each shard's number once it is in."""
        self.index = find_index(self.store) or self.index
        new = sorted(set(self.index.entries) - set(self.loaded))
        for number, samples in decoded(self.store, self.index, new):
            self.add(samples)
            self.loaded.append(number)
            yield number

    def add(self, samples: Samples) -> None:
        view = view_of(samples, self.index.card.plan)
        passed, dropped = apply(self.filters, view)
        self.dropped.update(dropped)
        end = self.count + int(passed.sum())
        self.rows.images[self.count : end] = torch.from_numpy(np.ascontiguousarray(samples.images))[passed]
        self.rows.labels[self.count : end] = view.labels[passed]
        self.rows.logits[self.count : end] = view.logits[passed]
        self.count = end

    def samples(self) -> Batch:
        """Everything loaded so far, as one batch that isn't a copy."""
        return Batch(*(rows[: self.count] for rows in (self.rows.images, self.rows.labels, self.rows.logits)))

    def refuse_if_empty(self) -> None:
        """Raise HopelessError where every sample was dropped."""
        if len(self) == 0:
            reasons = ", ".join(f"{name} {count:,}" for name, count in self.dropped.items() if count)
            raise HopelessError(
                f"every one of the {self.dropped.total():,} samples of {self.store} was dropped ({reasons}): "
                "loosen the filter that dropped most, or make shards with other classes"
            )


def empty_rows(index: Index) -> Batch:
    """Room for the whole run, which takes memory only as it is filled."""
    planned, card = index.card.plan.samples, index.card
    images = torch.empty(planned, *card.image_shape, dtype=torch.uint8)
    return Batch(images, torch.empty(planned, dtype=torch.long), torch.empty(planned, card.num_classes))


def check_memory(index: Index) -> None:
    """Raise UserError where the run's samples, as `empty_rows` lays them out, would fill this machine's memory."""
    each = int(np.prod(index.card.image_shape)) + 8 + 4 * index.card.num_classes  # bytes of image, label and logits
    needed = index.card.plan.samples * each
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > SHARE_OF_MEMORY * present:
        raise UserError(
            f"the run's {index.card.plan.samples:,} samples take {needed / 2**30:.0f} GiB decoded, more than half of this "
            f"machine's {present / 2**30:.0f} GiB: use a machine with more memory, or a smaller run"
        )
