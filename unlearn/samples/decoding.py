"""Shards decoded ahead of the training, in other processes if there is much to decode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from synth.basics.errors import UserError
from synth.shards.index import Index, read_shard
from synth.shards.samples import Samples
from synth.shards.store import Store
from unlearn.samples.cache import open_shards

T = TypeVar("T")

WORTH_A_PROCESS = 20_000  # samples; some three seconds of decoding
MOST_PROCESSES = 4
AHEAD = 2  # shards that each process decodes in advance


class Decoding(Dataset[Samples | UserError]):
    """The shards of a run with these numbers, in this order.

    A UserError is returned, not raised: DataLoader would wrap it in a traceback of many lines.
    """

    def __init__(self, store: Store, index: Index, numbers: Sequence[int]) -> None:
        self.store, self.index, self.numbers = store, index, numbers
        self.reopened = False

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> Samples | UserError:
        if get_worker_info() is not None and not self.reopened:  # a fork cannot use the parent's connections
            self.store, self.reopened = open_shards(str(self.store)), True
        try:
            return read_shard(self.store, self.index, self.index.entries[self.numbers[position]])
        except UserError as error:
            return error


def decoded(store: Store, index: Index, numbers: Sequence[int]) -> Iterator[tuple[int, Samples]]:
    """The number and the samples of each of these shards, in this order.

    Raises:
        UserError: a shard is missing or damaged.
    """
    much = sum(index.entries[number].samples for number in numbers) >= WORTH_A_PROCESS
    processes = min(torch.get_num_threads(), MOST_PROCESSES, len(numbers)) if much else 0
    shards = DataLoader(
        Decoding(store, index, numbers),
        batch_size=None,
        num_workers=processes,
        prefetch_factor=AHEAD if processes else None,
        collate_fn=unchanged,  # tensors would need shared memory, of which containers often have little
    )
    for number, found in zip(numbers, shards, strict=True):
        if isinstance(found, UserError):
            raise found
        yield number, found


def unchanged(item: T) -> T:
    return item
