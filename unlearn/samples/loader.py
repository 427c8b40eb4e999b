"""One run for several trainers of your own at once, also while the run is still being written (docs/streaming.md).

A sample is an image, or a view of it. A slot is one loader worker of one rank. In each epoch the planned shards are put
in an order drawn from (seed, epoch) and dealt to the slots in turn, so that each sample is in one batch of one slot.
Every slot yields as many batches as the slot with the most samples, and all batches have the same size: missing samples
are filled in with zeros of weight 0. So no rank waits for a rank that has ended, and no sample is dropped or seen
twice. The loss of each sample is multiplied by its weight.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from synth.basics.errors import UserError
from synth.shards.index import Index, find_index, read_shard
from synth.shards.plan import Plan
from synth.shards.store import Store
from unlearn.samples.cache import open_shards
from unlearn.samples.composed import composed, recipes_of
from unlearn.samples.filters import Filter, apply, view_of
from unlearn.samples.runs import POLL_SECONDS


@dataclass(frozen=True)
class WeightedBatch:
    """uint8 images (B, C, H, W), classes (B,), teacher logits (B, K), weights (B,): 1 for a sample, 0 for padding.

    A sample is an image or a view of it.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    weights: Tensor


class ShardLoader(IterableDataset[WeightedBatch]):
    """Batches of a run for one trainer.

    Give it to `DataLoader(loader, batch_size=None, num_workers=...)`, and call `set_epoch` before each epoch.

    Args:
        uri: a folder, or s3://BUCKET/RUN.
        rank, world_size: this trainer's number from 0, and the number of trainers.
        filters: which samples pass, as in `unlearn.samples.filters`. Padding takes the place of the others.
        timeout: seconds to wait for a new shard of this slot.
        wait: sleeps for a number of seconds.

    Raises:
        ValueError: rank, seed or batch size is out of range.
        UserError: while iterating: there is no run, a shard is damaged, or no new shard came in time.
    """

    def __init__(
        self,
        uri: str,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        filters: Mapping[str, Filter] | None = None,
        timeout: float = 3600.0,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} must be 0 or more and below the world size {world_size}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, not {seed}")
        if batch_size < 1:
            raise ValueError(f"batch size must be 1 or more, not {batch_size}")
        self.uri, self.batch_size = uri, batch_size
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.filters, self.timeout, self.wait = filters or {}, timeout, wait
        # In shared memory, so that loader workers that live for several epochs see it change.
        self.shared_epoch = torch.zeros((), dtype=torch.long).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self.shared_epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which has its own order and split. The choice applies from the next iteration on."""
        self.shared_epoch.fill_(epoch)

    def __iter__(self) -> Iterator[WeightedBatch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        store = open_shards(self.uri)
        index, epoch = self.first_index(store), self.epoch
        deal = deal_shards(index.card.plan, self.world_size * workers, self.seed, epoch)
        steps = steps_for(index.card.plan, deal, self.batch_size)
        mine = deal[self.rank * workers + worker]
        padding = empty_batch(self.batch_size, index)
        yielded = 0
        for batch in in_batches(self.shards(store, index, mine, epoch), self.batch_size, padding):
            yield batch
            yielded += 1
        for _ in range(steps - yielded):
            yield padding

    def shards(self, store: Store, index: Index, numbers: list[int], epoch: int) -> Iterator[WeightedBatch]:
        """The samples of the shards with these numbers, each as soon as it is published, filtered and shuffled."""
        waiting = list(numbers)
        last_news = time.monotonic()
        while waiting:
            ready = [number for number in waiting if number in index.entries]
            for number in ready:
                yield from self.load(store, index, number, epoch)
                last_news = time.monotonic()
            waiting = [number for number in waiting if number not in index.entries]
            if not waiting:
                return
            if time.monotonic() - last_news > self.timeout:
                raise UserError(
                    f"shard {waiting[0]} of {store} was not published within {self.timeout:g} s: "
                    "look at 'synth status', and continue the run with 'synth generate --resume'"
                )
            if not ready:
                self.wait(POLL_SECONDS)
            index = find_index(store) or index

    def load(self, store: Store, index: Index, number: int, epoch: int) -> Iterator[WeightedBatch]:
        """The samples of one shard that pass the filters, shuffled, in parts whose views are in memory at once."""
        samples = read_shard(store, index, index.entries[number])
        view = view_of(samples, index.card.plan)
        passed, _ = apply(self.filters, view)
        order = torch.from_numpy(shuffled(len(view.labels), self.seed, epoch, number + 1))
        recipes = recipes_of(samples)
        for rows in order[passed[order]].split(self.batch_size):
            pixels = composed(samples, recipes, rows)
            yield WeightedBatch(pixels, view.labels[rows], view.logits[rows], torch.ones(len(rows)))

    def first_index(self, store: Store) -> Index:
        """The run's index, as soon as there is one. Raises UserError if there is none in time."""
        started = time.monotonic()
        while (index := find_index(store)) is None:
            if time.monotonic() - started > self.timeout:
                raise UserError(f"there is no run in {store} after {self.timeout:g} s: start it with 'synth generate'")
            self.wait(POLL_SECONDS)
        return index


def deal_shards(plan: Plan, slots: int, seed: int, epoch: int) -> list[list[int]]:
    """The numbers of the shards that each slot reads."""
    order = shuffled(plan.shards, seed, epoch).tolist()
    return [order[slot::slots] for slot in range(slots)]


def shuffled(count: int, *key: int) -> np.ndarray:
    """The numbers below `count` in an order drawn from the key."""
    return np.random.default_rng(key).permutation(count)


def steps_for(plan: Plan, deal: list[list[int]], batch_size: int) -> int:
    """The number of batches of every slot: enough for the slot with the most samples, if all samples pass."""
    images = [sum(map(plan.images_in, numbers)) for numbers in deal]
    return -(-max(images) * (1 + plan.views) // batch_size)


def in_batches(parts: Iterator[WeightedBatch], size: int, padding: WeightedBatch) -> Iterator[WeightedBatch]:
    """Batches of one size from parts of any size. The last batch is padded."""
    held: list[WeightedBatch] = []
    for part in parts:
        held.append(part)
        if sum(len(p.weights) for p in held) < size:
            continue
        whole = joined(held)
        full = len(whole.weights) // size * size
        for start in range(0, full, size):
            yield share_of(whole, start, start + size)
        held = [share_of(whole, full, len(whole.weights))]
    if sum(len(p.weights) for p in held):
        yield share_of(joined([*held, padding]), 0, size)


def joined(parts: list[WeightedBatch]) -> WeightedBatch:
    return WeightedBatch(
        images=torch.cat([part.images for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        logits=torch.cat([part.logits for part in parts]),
        weights=torch.cat([part.weights for part in parts]),
    )


def share_of(batch: WeightedBatch, start: int, stop: int) -> WeightedBatch:
    return WeightedBatch(
        batch.images[start:stop], batch.labels[start:stop], batch.logits[start:stop], batch.weights[start:stop]
    )


def empty_batch(size: int, index: Index) -> WeightedBatch:
    """A batch of padding: zeros of weight 0."""
    return WeightedBatch(
        torch.zeros(size, *index.card.image_shape, dtype=torch.uint8),
        torch.zeros(size, dtype=torch.long),
        torch.zeros(size, index.card.num_classes),
        torch.zeros(size),
    )
