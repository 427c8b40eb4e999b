"""A run in work: how far it is, for the person who started it, and in its store for `synth status` and `synth preview`.

What others read of it is small and seldom written: a few numbers in the run's lock, which is renewed anyway, and until
the first shard is published a picture of some of that shard's images. Neither is left when the run's process ends.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from synth.basics.errors import UserError
from synth.basics.progress import Progress
from synth.making.pulse import LARGEST_PICTURE, Beat
from synth.run.holder import facts_in
from synth.run.lock import LOCK, Lock, read_lock
from synth.shards.index import Index, ShardEntry
from synth.shards.store import Store

PICTURE = ".synth.preview.tmp"  # a temporary name, so that it never counts as a file of the run


class Working:
    """Follows a run from the beats of its workers and from the shards that are published.

    Args:
        now: the time in seconds.
    """

    def __init__(self, store: Store, index: Index, lock: Lock, now: Callable[[], float] = time.monotonic) -> None:
        self.store, self.plan, self.lock, self.now = store, index.card.plan, lock, now
        self.published = set(index.entries)
        self.size = sum(entry.size for entry in index.entries.values())  # bytes
        self.images = index.images
        self.training: Progress | None = None
        self.progress: Progress | None = None
        self.drawn = False

    def heard(self, beats: list[Beat]) -> None:
        """Take in how far each job in work is."""
        for beat in beats:
            if beat.picture is not None and beat.number not in self.published:
                self.leave_picture(beat.picture)
        if len(beats) == 1 and beats[0].number < 0:
            self.show_training(beats[0].share)
            return
        shares = {beat.number: beat.share for beat in beats if beat.number not in self.published}
        in_work = sum(share * self.plan.images_in(number) for number, share in shares.items())
        self.show(0, in_work, len(shares))

    def enter(self, entry: ShardEntry) -> None:
        """Count a shard as published."""
        self.published.add(entry.number)
        self.size += entry.size
        progress = self.progress_of_images()
        share = self.plan.images_in(entry.number)
        self.show(share, max(0.0, progress.in_work - share), 0)
        self.remove_picture()

    def progress_of_images(self) -> Progress:
        """The progress, whose clock starts when the first job begins."""
        self.close_training()
        if self.progress is None:
            self.progress = Progress(self.plan.images, self.images, "images")
        return self.progress

    def show(self, finished: int, in_work: float, shards: int) -> None:
        progress = self.progress_of_images()
        progress.advance(finished, in_work)
        rate = progress.rate(time.monotonic())
        self.lock.work = {"images": round(progress.reached, 2), "per_second": round(rate, 6), "shards": shards}

    def show_training(self, share: float) -> None:
        if self.training is None:
            self.training = Progress(1, unit="", words="training the generator")
        self.training.advance(0, share)

    def leave_picture(self, picture: bytes) -> None:
        """Write the picture for `synth preview`. The run goes on if that is not possible."""
        with suppress(UserError, OSError):
            self.lock.check()
            self.store.write(PICTURE, picture)
            self.drawn = True

    def remove_picture(self) -> None:
        if self.drawn:
            self.drawn = False
            with suppress(UserError, OSError):
                self.lock.check()
                self.store.remove(PICTURE)

    def close_training(self) -> None:
        if self.training is not None:
            self.training.close()
            self.training = None

    def close(self) -> None:
        self.close_training()
        if self.progress is not None:
            self.progress.close()
        self.remove_picture()


@contextmanager
def working(store: Store, index: Index, lock: Lock) -> Iterator[Working]:
    """Follow the run while the `with` block lasts."""
    run = Working(store, index, lock)
    try:
        yield run
    finally:
        run.close()


@dataclass(frozen=True)
class Work:
    """What the process that makes a run said of it last."""

    images: float  # in published shards and in those in work
    per_second: float
    shards: int  # in work


def work_in(store: Store) -> Work | None:
    """What the holder of the run's lock said; None if there is no lock, or it says nothing of its work.

    Anyone can write a lock, so its numbers are checked.
    """
    raw = facts_in(read_lock(store, LOCK)).get("work")
    if not isinstance(raw, Mapping):
        return None
    values = [raw.get(name) for name in ("images", "per_second", "shards")]
    if not all(type(value) in (int, float) and 0 <= value <= 1e12 for value in values):
        return None
    images, per_second, shards = (float(value) for value in values)
    return Work(images, per_second, int(shards)) if math.isfinite(images) else None


def picture_in(store: Store) -> bytes | None:
    """The picture of the first shard in work; None if there is none."""
    try:
        return store.read(PICTURE, LARGEST_PICTURE)
    except FileNotFoundError:
        return None
