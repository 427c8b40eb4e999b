"""A run in work: how far it is, for the person who started it, and in its store for `synth status` and `synth preview`.

What others read of it is small and seldom written: a few numbers in the run's lock, which is renewed anyway, and until
the first shard is published a picture of some of that shard's images. Neither is left when the run's process ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from synth.basics.byte_sizes import format_bytes
from synth.basics.errors import UserError
from synth.basics.progress import Progress, Say
from synth.making.pulse import LARGEST_PICTURE, Beat
from synth.run.holder import facts_in, runs_here, this_machine
from synth.run.lock import LOCK, Lock, read_lock
from synth.run.sizes import free_bytes
from synth.shards.index import Index, ShardEntry
from synth.shards.store import Store

PICTURE = ".synth.preview.tmp"  # a temporary name, so that it never counts as a file of the run


class Working:
    """Follows a run from the beats of its workers and from the shards that are published.

    Args:
        say: gets lines for a person.
    """

    def __init__(self, store: Store, index: Index, lock: Lock, say: Say) -> None:
        self.store, self.plan, self.lock, self.say = store, index.card.plan, lock, say
        self.published = set(index.entries)
        self.size = sum(entry.size for entry in index.entries.values())  # bytes of these shards
        self.images = index.samples  # in these shards
        self.warned = False
        self.training: Progress | None = None
        self.progress: Progress | None = None
        self.drawn = False

    def heard(self, beats: list[Beat]) -> None:
        """Take in how far each job in work is."""
        for beat in beats:
            if beat.picture is not None and beat.number not in self.published:
                self.leave_picture(beat.picture)
        if not beats and self.progress is None:  # nothing has begun
            return
        if len(beats) == 1 and beats[0].number < 0:
            self.show_training(beats[0].share)
            return
        shares = {beat.number: beat.share for beat in beats if beat.number not in self.published}
        in_work = sum(share * self.plan.images_in(number) for number, share in shares.items())
        self.show(0, in_work, len(shares))

    def enter(self, entry: ShardEntry) -> None:
        """Count a shard as published."""
        in_work = self.progress_of_images().in_work
        self.published.add(entry.number)
        self.size += entry.size
        self.images += entry.samples
        self.show(entry.samples, max(0.0, in_work - entry.samples), 0)
        self.remove_picture()
        self.warn_of_full_disk()

    def warn_of_full_disk(self) -> None:
        """Say so once if the disk will not hold the rest of the run, by the size of the shards that are published."""
        left = self.size / self.images * (self.plan.images - self.images)
        free = free_bytes(self.store)
        if free is not None and free < left and not self.warned:
            self.warned = True
            self.say(
                f"warning: the rest of the run will take about {format_bytes(left)} and the disk of {self.store} has "
                f"{format_bytes(free)} free: free some space meanwhile"
            )

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
def working(store: Store, index: Index, lock: Lock, say: Say) -> Iterator[Working]:
    """Follow the run while the `with` block lasts."""
    run = Working(store, index, lock, say)
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
    """What the holder of the run's lock said; None if it said nothing, or if it ran on this machine and has ended.

    Anyone can write a lock, so its numbers are checked.
    """
    facts = facts_in(read_lock(store, LOCK))
    raw = facts.get("work")
    if not isinstance(raw, Mapping) or (facts.get("machine") == this_machine() and not runs_here(facts)):
        return None
    values = [number_in(raw.get(name)) for name in ("images", "per_second", "shards")]
    return Work(values[0], values[1], int(values[2])) if min(values) >= 0 else None


def number_in(value: object) -> float:
    """The value if it is a number that a run could have; otherwise -1."""
    return value if isinstance(value, int | float) and 0 <= value <= 1e12 else -1.0


def picture_in(store: Store) -> bytes | None:
    """The picture of the first shard in work; None if there is none."""
    try:
        return store.read(PICTURE, LARGEST_PICTURE)
    except FileNotFoundError:
        return None
