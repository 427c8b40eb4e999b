"""One run to several trainers at once: split by rank and by loader worker, also while the run is still being written.

The rule. In each epoch the plan's shards are put in an order drawn from (seed, epoch) and dealt in turn to the slots, a
slot being one loader worker of one rank, so that each sample is in one batch of one slot. Every slot yields the same number
of batches, that of the fullest one, and every batch has the same size: what is missing is filled with zeros of weight 0.
So no rank waits for another that has ended, and nothing is dropped or seen twice; a loss multiplies by the weights.
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
from unlearn.samples.filters import Filter, apply
from unlearn.samples.pool import view_of
from unlearn.samples.stream import POLL_SECONDS


@dataclass(frozen=True)
class WeightedBatch:
    """uint8 images (B, C, H, W), classes (B,), teacher logits (B, K), and weights (B,): 1 for a sample, 0 for filling."""

    images: Tensor
    labels: Tensor
    logits: Tensor
    weights: Tensor


class ShardLoader(IterableDataset[WeightedBatch]):
    """Give it to a `DataLoader(loader, batch_size=None, num_workers=...)`, and call `set_epoch` before each epoch.

    Args:
        uri: a folder, or s3://BUCKET/RUN.
        rank, world_size: this trainer's number, and how many there are.
        filters: which samples pass, as in `unlearn.filters`; those that don't leave filling in their place.
        timeout: seconds without a new shard of this slot's before giving up with a UserError.
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
            raise ValueError(f"rank {rank} is not within 0 and world size {world_size} - 1")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, not {seed}")
        if batch_size < 1:
            raise ValueError(f"batch size must be 1 or more, not {batch_size}")
        self.uri, self.batch_size = uri, batch_size
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.filters, self.timeout, self.wait = filters or {}, timeout, wait
        self.shared_epoch = torch.zeros(
            (), dtype=torch.long
        ).share_memory_()  # workers that outlive an epoch see it change

    @property
    def epoch(self) -> int:
        return int(self.shared_epoch)

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has another order and another split. It holds from the next iteration on."""
        self.shared_epoch.fill_(epoch)

    def __iter__(self) -> Iterator[WeightedBatch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        store = open_shards(self.uri)
        index, epoch = self.first_index(store), self.epoch
        deal = deal_shards(index.card.plan, self.world_size * workers, self.seed, epoch)
        steps = steps_for(index.card.plan, deal, self.batch_size)
        mine = deal[self.rank * workers + worker]
        filler = empty_batch(self.batch_size, index)
        yielded = 0
        for batch in in_batches(self.samples(store, index, mine, epoch), self.batch_size, filler):
            yield batch
            yielded += 1
        for _ in range(steps - yielded):
            yield filler

    def samples(self, store: Store, index: Index, numbers: list[int], epoch: int) -> Iterator[WeightedBatch]:
        """The shards of these numbers, each as soon as it is published, its samples shuffled and filtered."""
        waiting = list(numbers)
        last_news = time.monotonic()
        while waiting:
            ready = [number for number in waiting if number in index.entries]
            for number in ready:
                yield self.load(store, index, number, epoch)
                last_news = time.monotonic()
            waiting = [number for number in waiting if number not in index.entries]
            if not waiting:
                return
            if time.monotonic() - last_news > self.timeout:
                raise UserError(
                    f"shard {waiting[0]} of {store} was not published within {self.timeout:g} s: see 'synth status', and "
                    "go on with 'synth generate --resume'"
                )
            if not ready:
                self.wait(POLL_SECONDS)
            index = find_index(store) or index

    def load(self, store: Store, index: Index, number: int, epoch: int) -> WeightedBatch:
        samples = read_shard(store, index, index.entries[number])
        view = view_of(samples, index.card.plan)
        passed, _ = apply(self.filters, view)
        rows = torch.from_numpy(shuffled(len(samples), self.seed, epoch, number + 1))
        rows = rows[passed[rows]]
        images = torch.from_numpy(np.ascontiguousarray(samples.images))
        return WeightedBatch(images[rows], view.labels[rows], view.logits[rows], torch.ones(len(rows)))

    def first_index(self, store: Store) -> Index:
        started = time.monotonic()
        while (index := find_index(store)) is None:
            if time.monotonic() - started > self.timeout:
                raise UserError(f"there is no run in {store} after {self.timeout:g} s: start it with 'synth generate'")
            self.wait(POLL_SECONDS)
        return index


def deal_shards(plan: Plan, slots: int, seed: int, epoch: int) -> list[list[int]]:
    """The shard numbers of each slot."""
    order = shuffled(plan.shards, seed, epoch).tolist()
    return [order[slot::slots] for slot in range(slots)]


def shuffled(count: int, *key: int) -> np.ndarray:
    """The numbers below `count` in an order drawn from the key."""
    return np.random.default_rng(key).permutation(count)


def steps_for(plan: Plan, deal: list[list[int]], batch_size: int) -> int:
    """Batches that the fullest slot takes, before filters; all the others yield as many."""
    jobs = [[plan.job(number) for number in numbers] for numbers in deal]
    return max(-(-sum(job.samples for job in slot) // batch_size) for slot in jobs)


def in_batches(parts: Iterator[WeightedBatch], size: int, filler: WeightedBatch) -> Iterator[WeightedBatch]:
    """Batches of one size from parts of any; the last one is filled up."""
    held: list[WeightedBatch] = []
    for part in parts:
        held.append(part)
        if sum(len(p.weights) for p in held) < size:
            continue
        whole = joined(held)
        full = len(whole.weights) // size * size
        for start in range(0, full, size):
            yield part_of(whole, start, start + size)
        held = [part_of(whole, full, len(whole.weights))]
    if sum(len(p.weights) for p in held):
        yield part_of(joined([*held, filler]), 0, size)


def joined(parts: list[WeightedBatch]) -> WeightedBatch:
    fields = zip(*((p.images, p.labels, p.logits, p.weights) for p in parts), strict=True)
    return WeightedBatch(*map(torch.cat, fields))


def part_of(batch: WeightedBatch, start: int, stop: int) -> WeightedBatch:
    return WeightedBatch(
        batch.images[start:stop], batch.labels[start:stop], batch.logits[start:stop], batch.weights[start:stop]
    )


def empty_batch(size: int, index: Index) -> WeightedBatch:
    return WeightedBatch(
        torch.zeros(size, *index.card.image_shape, dtype=torch.uint8),
        torch.zeros(size, dtype=torch.long),
        torch.zeros(size, index.card.num_classes),
        torch.zeros(size),
    )
