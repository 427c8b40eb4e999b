"""Settings that every method's loop shares, and settings without effect. No torch here: the command line reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from synth.basics.errors import UsageError
from synth.basics.settings import Settings, setting

# Settings that have no effect beside another: their names, whether that is so, and what a user is told.
Idle = tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...]


@dataclass(frozen=True, kw_only=True)
class LoopSettings(Settings):
    """What every method's loop shares: how often it looks up from its work, and the monitor that stops it."""

    every: int = setting(
        50, "steps between two checks: a line of metrics, a checkpoint, a look by the monitor", at_least=1
    )
    monitor: bool = setting(True, "stop before the forget class comes back, by synthetic hold-outs from --shards")
    holdout: float = setting(
        0.1, "share of the shards that is never trained on, for the monitor", above=0, below=1, rare=True
    )
    top: int = setting(
        2,
        "a hold-out counts where the forget class is among the student's so many likeliest answers",
        at_least=1,
        rare=True,
    )
    forget_bound: float = setting(
        1.0,
        "the forget class is back where more than this % of its hold-outs count",
        at_least=0,
        below=100,
        rare=True,
    )
    patience: int = setting(2, "checks in a row above the bound before the run stops", at_least=1, rare=True)
    keep_students: bool = setting(
        False, "keep the student of every check as well, to see a run's course afterwards", rare=True
    )


def refuse_idle(idle: Idle, settings: Any, flags: Mapping[str, Any]) -> None:
    """Raise UsageError where a flag was given that has no effect beside the other settings."""
    for names, is_idle, why in idle:
        for name in names:
            if flags.get(name) is not None and is_idle(settings):
                raise UsageError(f"--{name.replace('_', '-')} has no effect {why}")
