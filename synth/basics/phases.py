"""How long this process spends in each phase of its work, in seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_spent: dict[str, float] = {}


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Count the time of the `with` block towards the phase."""
    started = time.monotonic()
    try:
        yield
    finally:
        _spent[name] = _spent.get(name, 0.0) + time.monotonic() - started


def take_phases() -> dict[str, float]:
    """This process's seconds by phase since the last call."""
    spent = dict(_spent)
    _spent.clear()
    return spent
