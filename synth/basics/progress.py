"""Progress of a long job: on a terminal one line that is rewritten, in a notebook a bar, elsewhere a new line now and
then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from synth.basics.notebook import notebook_bar

Say = Callable[[str], None]  # gets lines for a person
FIRST_LINE = 5.0  # seconds until the first plain line
PLAIN_INTERVAL = 30.0
BAR_INTERVAL = 0.2

hidden: ContextVar[bool] = ContextVar("hidden", default=False)


@contextmanager
def no_progress() -> Iterator[None]:
    """Jobs that begin inside show no progress."""
    before = hidden.set(True)
    try:
        yield
    finally:
        hidden.reset(before)


class Progress:
    """Counts work towards `total` and shows the rate and the time left.

    Args:
        done: what was finished before the start; it does not count towards the rate.
        unit: what is counted. If it is empty, the line shows only the share that is done.
        words: what the job is, at the start of the line.
        passing: whether the job is a part of a longer one. It then shows nothing if it is short, and leaves nothing on
            a terminal.
        in_turn: whether one piece comes after another, so that the first one also pays for what happens only once.
    """

    def __init__(
        self,
        total: float,
        done: float = 0,
        unit: str = "samples",
        words: str = "",
        passing: bool = False,
        in_turn: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.total, self.done, self.unit, self.words, self.passing = total, done, unit, words, passing
        self.in_turn = in_turn
        self.in_work = 0.0  # what is done of pieces that are not finished
        self.since: tuple[float, float] | None = None  # when the speed is measured from, and what was done then
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.bar = notebook_bar() if stream is None and not passing else None
        self.started, self.before = time.monotonic(), done
        self.due = self.started + (FIRST_LINE if passing or not (self.live or self.bar) else 0.0)
        self.ended = False  # whether the line with the whole work was shown
        self.hidden = hidden.get()

    def advance(self, finished: float, in_work: float = 0.0) -> None:
        """Count work as finished, and note how much is done of pieces that are still in work."""
        self.done += finished
        self.in_work = in_work
        now = time.monotonic()
        if self.since is None and self.reached > self.before:
            # A first step in a piece of work also pays for what happens only once. A first finished piece does not tell
            # when others will be: several workers may finish at the same time.
            self.since = (now, self.reached) if in_work or self.in_turn else (self.started, self.before)
        ends = self.reached >= self.total and not self.ended and not self.passing
        if self.hidden or (now < self.due and not ends):
            return
        self.ended = self.ended or ends
        plain = PLAIN_INTERVAL if self.rate(now) else FIRST_LINE
        self.due = now + (BAR_INTERVAL if self.live or self.bar else plain)
        if self.live:
            lines_shown.add(self)
            self.stream.write(f"\r\x1b[K{self.line(now)}")
            self.stream.flush()
        elif self.bar:
            self.bar(self.reached / self.total, self.line(now))
        else:
            print(self.line(now), file=self.stream, flush=True)

    @property
    def reached(self) -> float:
        return min(self.done + self.in_work, self.total)

    def rate(self, now: float) -> float:
        """Work per second since the first step, pieces in work included; 0 as long as nobody knows."""
        at, done = self.since or (self.started, self.before)
        return max(0.0, self.reached - done) / max(now - at, 1e-9)

    def line(self, now: float) -> str:
        words = f"{self.words}: " if self.words else ""
        return words + progress_line(self.reached, self.total, self.rate(now), self.unit)

    def clear(self) -> None:
        """Make room for another line. The progress comes back below it."""
        self.stream.write("\r\x1b[K")
        self.stream.flush()
        self.due = 0.0

    def close(self) -> None:
        shown = self in lines_shown
        lines_shown.discard(self)
        if shown and self.passing:
            self.clear()
        elif shown:
            self.stream.write("\n")


lines_shown: set[Progress] = set()  # those whose line stands on a terminal now


def clear_lines() -> None:
    """Take the lines of progress off the terminal, before something else is printed there."""
    while lines_shown:
        lines_shown.pop().clear()


def progress_line(done: float, total: float, rate: float, unit: str) -> str:
    """How much is done, the rate per second and the time left. If `unit` is empty, only the share and the time left."""
    ahead = total - done
    left = f"{format_seconds(ahead / rate if ahead else 0)} left" if rate or not ahead else "time left not known yet"
    share = percent(done / total)
    if not unit:
        return f"{share}, {left}"
    speed = f"{format_rate(rate)}, " if rate else ""
    return f"{int(done):,} of {total:,} {unit} ({share}), {speed}{left}"


def percent(share: float) -> str:
    """`0.4%`, `12%`."""
    return f"{share:.1%}" if 0 < share < 0.095 else f"{share:.0%}"


def format_rate(rate: float) -> str:
    """`40.0/s`, or for slow work `3.1/min` or `2.5/h`."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate * seconds >= 1:
            return f"{rate * seconds:,.1f}/{unit}"
    return f"{rate * 3600:,.1f}/h"


def format_seconds(seconds: float) -> str:
    """`12 s`, `3 min 05 s`, `2 h 07 min` or `3 days 04 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 72 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} days {whole % 86400 // 3600:02d} h"


def counted(number: int, noun: str, ending: str = "s") -> str:
    """`1 shard`, `2 shards`."""
    return f"{number:,} {noun}{ending if number != 1 else ''}"
