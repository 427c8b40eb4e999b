"""Memory that tests allow: as if the machine had no more."""

from __future__ import annotations

import pytest

from synth.basics import free_memory as of_machine
from synth.basics.free_memory import Free


def allow(size: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process believe that `size` bytes are free."""
    monkeypatch.setattr(of_machine, "host_limits", lambda: iter([Free(int(size), "the test allows it")]))
