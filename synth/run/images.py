"""The images of a run, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator

from synth.shards.index import Index, read_shard
from synth.shards.samples import Samples
from synth.shards.store import Store


def images_by_shard(store: Store, index: Index) -> Iterator[Samples]:
    """The images of each published shard, in the order of the shards."""
    for number in sorted(index.entries):
        yield read_shard(store, index, index.entries[number])
