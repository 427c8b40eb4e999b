"""Shards to training samples, once each, also from a run that is still being written."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synth.errors import UserError
from synth.index import Index, find_index, read_index, read_shard
from synth.shards import Samples
from synth.store import Store
from unlearn.filters import Filter, View, apply

POLL_SECONDS = 1.0
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


def view_of(samples: Samples, blends: int) -> View:
    """What the filters see of a shard's samples."""
    images = np.array([int(key) // (1 + blends) for key in samples.keys])
    partners = np.where(samples.partner_images < 0, images, samples.partner_images)
    arrays = (samples.logits, samples.labels, samples.partners, np.stack([images, partners], axis=1))
    return View(*map(torch.from_numpy, arrays))


class ShardPool:
    """Grows shard by shard, in memory: 60,000 images of 32x32x3 take 184 MB."""

    def __init__(self, store: Store, filters: Mapping[str, Filter]) -> None:
        self.store = store
        self.filters = filters
        self.index = read_index(store)
        self.loaded: list[int] = []
        self.dropped: Counter[str] = Counter(dict.fromkeys(filters, 0))
        self.parts: list[Batch] = []
        check_memory(self.index)

    @property
    def share_loaded(self) -> float:
        """Of the planned shards, how many are here, 0 to 1."""
        return len(self.loaded) / self.index.card.plan.shards

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def refresh(self) -> int:
        """Load what has been published since, and return how many shards that was."""
        self.index = find_index(self.store) or self.index
        new = [number for number in sorted(self.index.entries) if number not in set(self.loaded)]
        for number in new:
            samples = read_shard(self.store, self.index, self.index.entries[number])
            view = view_of(samples, self.index.card.plan.blends)
            passed, dropped = apply(self.filters, view)
            self.dropped.update(dropped)
            images = torch.from_numpy(np.ascontiguousarray(samples.images))
            self.parts.append(Batch(images[passed], view.labels[passed], view.logits[passed]))
            self.loaded.append(number)
        return len(new)

    def samples(self) -> Batch:
        """Everything loaded so far, as one batch."""
        if len(self.parts) > 1:
            fields = zip(*((p.images, p.labels, p.logits) for p in self.parts), strict=True)
            self.parts = [Batch(*map(torch.cat, fields))]
        return self.parts[0]

    def refuse_if_empty(self) -> None:
        """Raise UserError where every sample was dropped."""
        if len(self) == 0:
            reasons = ", ".join(f"{name} {count:,}" for name, count in self.dropped.items() if count)
            raise UserError(
                f"every one of the {self.dropped.total():,} samples of {self.store} was dropped ({reasons}): "
                "loosen the filter that dropped most, or make shards with other classes"
            )


def load_complete(store: Store, filters: Mapping[str, Filter]) -> ShardPool:
    """The whole of a finished run. Raises UserError where it is not finished."""
    pool = ShardPool(store, filters)
    if not pool.index.complete:
        published, planned = len(pool.index.entries), pool.index.card.plan.shards
        raise UserError(
            f"{store} has {published} of {planned} shards: train while they are made with --follow, "
            "or complete it with 'synth generate --resume'"
        )
    pool.refresh()
    pool.refuse_if_empty()
    return pool


def follow(
    store: Store, filters: Mapping[str, Filter], timeout: float, wait: Callable[[float], None] = time.sleep
) -> Iterator[ShardPool]:
    """Yield the pool each time it has grown, until the run is complete.

    Raises UserError where nothing new is published for `timeout` seconds.
    """
    pool = wait_for_run(store, filters, timeout, wait)
    last_news = time.monotonic()
    while True:
        if pool.refresh():
            last_news = time.monotonic()
            yield pool
        if pool.index.complete:
            pool.refuse_if_empty()
            return
        if time.monotonic() - last_news > timeout:
            raise UserError(
                f"nothing new in {store} for {timeout:g} s, {len(pool.loaded)} of {pool.index.card.plan.shards} shards are "
                "there: see 'synth status', go on with 'synth generate --resume', or wait longer with --follow-timeout"
            )
        wait(POLL_SECONDS)


def wait_for_run(
    store: Store, filters: Mapping[str, Filter], timeout: float, wait: Callable[[float], None] = time.sleep
) -> ShardPool:
    """The pool of a run whose index may not be there yet."""
    started = time.monotonic()
    while find_index(store) is None and time.monotonic() - started < timeout:
        wait(POLL_SECONDS)
    return ShardPool(store, filters)


def check_memory(index: Index) -> None:
    """Raise UserError where the run's images would fill this machine's memory."""
    needed = index.card.plan.samples * int(np.prod(index.card.image_shape))
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > SHARE_OF_MEMORY * present:
        raise UserError(
            f"the run's {index.card.plan.samples:,} images take {needed / 2**30:.0f} GiB decoded, more than half of this "
            f"machine's {present / 2**30:.0f} GiB: use a machine with more memory, or a smaller run"
        )
