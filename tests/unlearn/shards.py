"""What tests ask of shards: all samples of a run at once, streams of it, and a run that grows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from synth.shards.index import INDEX, PART, read_index
from synth.shards.store import Folder, Store
from unlearn.samples.batch import Batch, joined
from unlearn.samples.filters import Filter
from unlearn.samples.hold_out import HoldOut, hold_out
from unlearn.samples.memory import Share
from unlearn.samples.runs import Runs
from unlearn.samples.stream import Stream

GIB = 2**30


def stream_of(
    *runs: Path,
    filters: Mapping[str, Filter] | None = None,
    window: int | None = None,
    ahead: int = 1,
    **options: Any,
) -> Stream:
    """A stream of the runs: in windows of this many shards, or with all shards in memory."""
    opened = Runs([Folder(run) for run in runs])
    whole = window is None or window >= opened.planned
    share = Share(opened.planned, opened.planned, 2) if whole or window is None else Share(window, window + ahead, 2)
    return Stream(opened, filters or {}, share, **options)


def epochs(stream: Stream, images: int, count: int, size: int = 5) -> list[Batch]:
    """The samples of each of the next epochs of a run of this many images."""
    return [joined([stream.next(size) for _ in range(images // size)]) for _ in range(count)]


def images_of(run: Path | Store, filters: Mapping[str, Filter] | None = None) -> HoldOut:
    """All images of a run that pass the filters, without views, in order."""
    return hold_out(Runs([Folder(run) if isinstance(run, Path) else run]), filters or {}, 1.0, 100 * GIB)


def rows(values: torch.Tensor) -> list[bytes]:
    """Each row as bytes, to compare samples by."""
    return [row.numpy().tobytes() for row in values]


class Growing:
    """A run that gets one more shard each time that somebody waits for it."""

    def __init__(self, source: Path, target: Path, order: Sequence[int] | None = None) -> None:
        self.source, self.store = source, Folder(target)
        self.whole = read_index(Folder(source))
        self.order = list(order or self.whole.entries)
        self.published = 0
        self.store.create()

    def publish_next(self, _seconds: float) -> None:
        entries = {number: self.whole.entries[number] for number in self.order[: self.published]}
        if self.published <= len(self.whole.entries):
            for entry in entries.values():
                if entry.name not in self.store.names():  # its readers may be at work
                    shutil.copy(self.source / entry.name, self.store.path)
            self.store.write(PART, replace(self.whole, entries=entries, complete=False).to_bytes())
            self.published += 1
        else:
            self.store.write(INDEX, self.whole.to_bytes())
            self.store.remove(PART)
