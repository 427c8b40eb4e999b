"""How far a piece of work is, from inside it: its loops call `tick`, and whoever started the work may listen.

The share that is done goes from 0 to 1. Work in several parts gives each part its own range of the share, by `stage` or
`stages`, so that no loop knows what it is a part of. A tick that nobody listens to costs a tenth of a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypeVar

Item = TypeVar("Item")
Show = Callable[[], Any]  # makes something to look at, such as the images in work; called only if somebody wants it
Report = Callable[[float, Show | None], None]  # gets the share that is done


@dataclass
class Watch:
    """A listener, and the range of the share that the present stage covers."""

    report: Report
    begin: float = 0.0
    end: float = 1.0


watch_now: ContextVar[Watch | None] = ContextVar("watch_now", default=None)


@contextmanager
def listening(report: Report) -> Iterator[None]:
    """Call `report` at every tick in the `with` block, in this thread."""
    token = watch_now.set(Watch(report))
    try:
        yield
    finally:
        watch_now.reset(token)


def tick(done: int, total: int, show: Show | None = None) -> None:
    """Report that `done` of `total` equal pieces of the present stage are done."""
    watch = watch_now.get()
    if watch is not None:
        watch.report(watch.begin + (watch.end - watch.begin) * done / total, show)


@contextmanager
def stage(begin: float, end: float) -> Iterator[None]:
    """The ticks in the `with` block go from `begin` to `end` of the enclosing stage."""
    watch = watch_now.get()
    if watch is None:
        yield
        return
    first, last = watch.begin, watch.end
    watch.begin, watch.end = (first + (last - first) * share for share in (begin, end))
    try:
        yield
    finally:
        watch.begin, watch.end = first, last


def stages(items: Sequence[Item], lengths: Sequence[float] | None = None) -> Iterator[Item]:
    """The items in turn. The work on each of them is a stage. The stages take times in the ratio of `lengths`; without
    them all take the same time.
    """
    ends = list(accumulate(lengths or [1.0] * len(items), initial=0.0))
    for item, (begin, end) in zip(items, pairwise(ends), strict=True):
        with stage(begin / ends[-1], end / ends[-1]):
            yield item


@contextmanager
def unheard() -> Iterator[None]:
    """Nobody hears the ticks in the `with` block: its work is a rehearsal of other work."""
    token = watch_now.set(None)
    try:
        yield
    finally:
        watch_now.reset(token)
