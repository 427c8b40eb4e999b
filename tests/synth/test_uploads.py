"""Uploads of shards into a slow store."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from synth.basics.errors import UserError
from synth.executors.handover import Staged
from synth.run.uploads import Uploads
from synth.shards.index import ShardEntry
from synth.shards.plan import Plan
from synth.shards.store import Folder

JOBS = list(Plan(classes=(0,), per_class=12, shard_size=1).jobs())


class Slow(Folder):
    """A slow store that refuses shard `broken` and counts the writes at the same time."""

    def __init__(self, path: Path, broken: int | None = None) -> None:
        super().__init__(path)
        self.broken, self.now, self.most, self.lock = broken, 0, 0, threading.Lock()

    def write(self, name: str, data: bytes) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self.lock:
            self.now -= 1
        if self.broken is not None and name == f"shard-{self.broken:06d}.tar":
            raise UserError("no room")
        super().write(name, data)


def test_uploads_overlap_up_to_a_bound_and_each_is_returned_once(tmp_path: Path) -> None:
    store, numbers = Slow(tmp_path), []
    uploads = Uploads(store, at_once=3)
    for job in JOBS:
        uploads.add(ShardEntry.of(job, b"data"), b"data")
        numbers += [landed.entry.number for landed in uploads.landed()]
        assert len(uploads.flying) < 3
    numbers += [landed.entry.number for landed in uploads.last()]
    assert sorted(numbers) == [job.number for job in JOBS]
    assert store.most == 3
    assert uploads.rescued() == []


def test_staged_shards_get_their_names_many_at_once_beside_a_few_uploads(tmp_path: Path) -> None:
    class Watched(Slow):
        moving = most_moving = 0

        def move(self, old: str, new: str, size: int) -> None:
            with self.lock:
                self.moving += 1
                self.most_moving = max(self.most_moving, self.moving)
            time.sleep(0.05)
            with self.lock:
                self.moving -= 1
            super().move(old, new, size)

    store = Watched(tmp_path)
    uploads = Uploads(store, at_once=2, named_at_once=6)
    numbers: list[int] = []
    for job in JOBS:
        entry, staged = ShardEntry.of(job, b"data"), f".{job.number}.tmp"
        Folder.write(store, staged, b"data")
        uploads.add(entry, Staged(staged, entry.size, entry.sha256) if job.number % 3 else b"data")
        numbers += [landed.entry.number for landed in uploads.landed()]
    numbers += [landed.entry.number for landed in uploads.last()]
    assert sorted(numbers) == [job.number for job in JOBS]
    assert 1 <= store.most <= 2
    assert 2 < store.most_moving <= 6
    assert store.names() == {f"shard-{number:06d}.tar" for number in numbers}


def test_a_staged_shard_of_another_size_is_refused(tmp_path: Path) -> None:
    Folder(tmp_path).write(".0.tmp", b"half")
    uploads = Uploads(Folder(tmp_path))
    uploads.add(ShardEntry.of(JOBS[0], b"half and half"), Staged(".0.tmp", 13, "0" * 64))
    with pytest.raises(UserError, match="has another size than was written"):
        next(uploads.last())
    assert Folder(tmp_path).names() == set()


def test_a_failed_upload_raises_and_the_others_are_returned(tmp_path: Path) -> None:
    uploads, numbers = Uploads(Slow(tmp_path, broken=5), at_once=4), []

    def all_of_them() -> None:
        for job in JOBS:
            uploads.add(ShardEntry.of(job, b"data"), b"data")
            for landed in uploads.landed():
                numbers.append(landed.entry.number)

    with pytest.raises(UserError, match="no room"):
        all_of_them()
    numbers += [landed.entry.number for landed in uploads.rescued()]
    assert 5 not in numbers
    assert sorted(f"shard-{number:06d}.tar" for number in numbers) == sorted(path.name for path in tmp_path.iterdir())
