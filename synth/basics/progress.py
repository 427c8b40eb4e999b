"""Progress of a long job: on a terminal one line that is rewritten, in a notebook a bar, elsewhere a new line every ten
seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from synth.basics.notebook import notebook_bar

Say = Callable[[str], None]  # gets lines for a person
PLAIN_INTERVAL = 10.0  # seconds
BAR_INTERVAL = 0.2


class Progress:
    """Counts samples towards `total` and shows the rate and the time left. `done` samples existed before the start."""

    def __init__(self, total: int, done: int = 0, unit: str = "samples", stream: TextIO | None = None) -> None:
        self.total, self.done, self.unit = total, done, unit
        self.before = done
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.bar = notebook_bar() if stream is None else None
        self.started = self.shown = time.monotonic()

    def advance(self, samples: int) -> None:
        self.done += samples
        now = time.monotonic()
        if self.live:
            self.stream.write(f"\r\x1b[K{self.line(now)}")
            self.stream.flush()
        elif self.bar:
            if now - self.shown >= BAR_INTERVAL or self.done == self.total:
                self.shown = now
                self.bar(self.done / self.total, self.line(now))
        elif now - self.shown >= PLAIN_INTERVAL or self.done == self.total:
            self.shown = now
            print(self.line(now), file=self.stream, flush=True)

    def line(self, now: float) -> str:
        rate = (self.done - self.before) / max(now - self.started, 1e-9)
        left = format_seconds((self.total - self.done) / rate) if rate else "?"
        share = self.done / self.total
        return f"{self.done:,} of {self.total:,} {self.unit} ({share:.0%}), {rate:,.1f}/s, {left} left"

    def close(self) -> None:
        if self.live:
            self.stream.write("\n")


def format_seconds(seconds: float) -> str:
    """`12 s`, `3 min 05 s` or `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(number: int, noun: str, ending: str = "s") -> str:
    """`1 shard`, `2 shards`."""
    return f"{number:,} {noun}{ending if number != 1 else ''}"
