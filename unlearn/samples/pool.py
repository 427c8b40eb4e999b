"""The samples that a student learns from, in memory: those of a run that passed the filters."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synth.basics.errors import HopelessError, UserError
from synth.shards.index import Index, find_index, read_index, read_shard
from synth.shards.plan import Plan
from synth.shards.samples import Samples
from synth.shards.store import Store
from unlearn.samples.decoding import decoded
from unlearn.samples.filters import Filter, ForgetShareBelow, NoForgetLabel, View, apply, unblended
from unlearn.samples.logits import forget_share

SHARE_OF_MEMORY = 0.5  # that the samples may take at most


@dataclass(frozen=True)
class Batch:
    """Samples: uint8 images (N, C, H, W), classes int64 (N,), and the teacher's logits float32 (N, K)."""

    images: Tensor
    labels: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str) -> Batch:
        return Batch(self.images.to(device), self.labels.to(device), self.logits.to(device))


def view_of(samples: Samples, plan: Plan) -> View:
    """What the filters see of a shard's samples, where each image is followed by its `plan.blends` blends."""
    images = np.array([int(key) // (1 + plan.blends) for key in samples.keys])
    others = np.where(samples.partner_images < 0, images, samples.partner_images)
    return View(
        logits=torch.from_numpy(samples.logits),
        labels=torch.from_numpy(samples.labels),
        partners=torch.from_numpy(samples.partners),
        sources=torch.from_numpy(np.stack([images, others], axis=1)),
        classes=len(plan.classes),
    )


class ShardPool:
    """The samples of a run that passed the filters. The pool grows shard by shard.

    60,000 images of 32x32x3 take 184 MB.

    Attributes:
        index: the run's index, as last read.
        loaded: the numbers of the shards whose samples are in the pool.
        dropped: how many samples each filter dropped so far.

    Raises:
        UserError: there is no run in the store, or its samples would fill this machine's memory.
    """

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
        """The share of the planned shards that are loaded, 0 to 1."""
        return len(self.loaded) / self.index.card.plan.shards

    def __len__(self) -> int:
        return self.count

    def arrivals(self) -> Iterator[int]:
        """Load the shards that were published since the last call. Yield the number of each after it is added."""
        self.index = find_index(self.store) or self.index
        new = sorted(set(self.index.entries) - set(self.loaded))
        for number, samples in decoded(self.store, self.index, new):
            self.add(samples)
            self.loaded.append(number)
            yield number

    def add(self, samples: Samples) -> None:
        """Append the samples of one shard that pass the filters."""
        view = view_of(samples, self.index.card.plan)
        passed, dropped = apply(self.filters, view)
        self.dropped.update(dropped)
        end = self.count + int(passed.sum())
        self.rows.images[self.count : end] = torch.from_numpy(np.ascontiguousarray(samples.images))[passed]
        self.rows.labels[self.count : end] = view.labels[passed]
        self.rows.logits[self.count : end] = view.logits[passed]
        self.count = end

    def samples(self) -> Batch:
        """All samples of the pool as one batch. It shares the pool's memory."""
        return Batch(*(rows[: self.count] for rows in (self.rows.images, self.rows.labels, self.rows.logits)))

    def refuse_if_empty(self) -> None:
        """Raise HopelessError if every sample was dropped."""
        if len(self) == 0:
            reasons = ", ".join(f"{name} {count:,}" for name, count in self.dropped.items() if count)
            gate = next((f for f in self.filters.values() if isinstance(f, ForgetShareBelow)), None)
            floor = f"; {in_words(forget_floor(self.store, self.index, gate.forget))}" if gate else ""
            raise HopelessError(
                f"the filters dropped all {self.dropped.total():,} samples of {self.store} ({reasons}): "
                "loosen the filter that dropped most of them (--gate, --entropy), or make shards with other "
                f"classes{floor}"
            )


def forget_floor(store: Store, index: Index, forget: tuple[int, ...]) -> float:
    """The probability of the forget classes that nine of ten images of the other classes reach; 0 without such images.

    It is measured on the run's first shard, without blends. A teacher that was trained on soft labels, as by label
    smoothing, gives every class some probability on every image.
    """
    first = min(index.entries)
    view = view_of(read_shard(store, index, index.entries[first]), index.card.plan)
    kept = unblended(view) & NoForgetLabel(forget)(view)
    shares = forget_share(view.logits[kept].double(), forget)
    return shares.quantile(0.1).item() if len(shares) else 0.0


def in_words(floor: float) -> str:
    return (
        f"on 9 of 10 images of the other classes the teacher gives a forget class a probability of {floor:.2g} or more"
    )


def empty_rows(index: Index) -> Batch:
    """Memory for all samples of the run. The system provides it only when it is written to."""
    planned, card = index.card.plan.samples, index.card
    images = torch.empty(planned, *card.image_shape, dtype=torch.uint8)
    return Batch(images, torch.empty(planned, dtype=torch.long), torch.empty(planned, card.num_classes))


def check_memory(index: Index) -> None:
    """Raise UserError if `empty_rows` would take more than half of this machine's memory."""
    each = int(np.prod(index.card.image_shape)) + 8 + 4 * index.card.num_classes  # bytes of image, label and logits
    needed = index.card.plan.samples * each
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > SHARE_OF_MEMORY * present:
        raise UserError(
            f"the run's {index.card.plan.samples:,} samples take {needed / 2**30:.0f} GiB of memory, "
            f"more than half of the {present / 2**30:.0f} GiB that this machine has: "
            "use a machine with more memory, or a smaller run"
        )
