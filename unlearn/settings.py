"""Settings that every method's loop shares, and settings without effect. No torch here: the command line reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synth.basics.errors import UsageError
from synth.basics.settings import MOST_STEPS, Settings, check_type, require, setting, shortened

# Settings that have no effect beside another: their names, whether this is so, and the end of the error.
Idle = tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...]


LARGEST_SEED = 2**32 - 1  # an audit numbers its experiments in the other half of torch's 64 bits


def check_asked(seed: Any, forget: Sequence[Any], architecture: Any = None, width: Any = None) -> None:
    """Raise ValueError for a request that no command line spells. It comes from the file of somebody else.

    Args:
        architecture: of the student; None for the teacher's. The width likewise.
    """
    check_type("seed", seed, (int,))
    require(0 <= seed <= LARGEST_SEED, f"seed must be within 0 and {LARGEST_SEED:,}, not {shortened(seed)}")
    for number in forget:
        check_type("a class to forget", number, (int, str))
        named = isinstance(number, str)
        require(named or number >= 0, f"a class to forget must be 0 or more, not {shortened(number)}")
    check_type("the student's architecture", architecture, (str, type(None)))
    check_type("the student's width", width, (float, type(None)))
    require(width is None or 0 < width <= 16, f"the student's width must be within 0 and 16, not {shortened(width)}")


@dataclass(frozen=True, kw_only=True)
class LoopSettings(Settings):
    """What every method's loop has in common: the checks of a run, and the monitor that stops it."""

    every: int = setting(
        50,
        "steps between two checks; a check writes metrics and a checkpoint and asks the monitor",
        at_least=1,
        most=MOST_STEPS,
    )
    monitor: bool = setting(
        True, "stop before the forget class comes back, judged on a synthetic hold-out from --shards"
    )
    holdout: float = setting(
        0.1, "share of the images in --shards that only the monitor uses", above=0, below=1, rare=True
    )
    top: int = setting(
        2,
        "the monitor counts an image if a forget class is among this number of the student's likeliest answers",
        at_least=1,
        most=100_000,
        rare=True,
    )
    forget_bound: float = setting(
        1.0,
        "the forget class is back if the monitor counts more than this % of its images",
        at_least=0,
        below=100,
        rare=True,
    )
    patience: int = setting(
        2, "checks in a row above the bound before the run stops", at_least=1, most=MOST_STEPS, rare=True
    )
    keep_students: bool = setting(
        False, "keep the student of every check as well, to compare them afterwards", rare=True
    )


def idle_names(idle: Idle, settings: Any) -> set[str]:
    """The settings that have no effect beside the others."""
    return {name for names, is_idle, _ in idle if is_idle(settings) for name in names}


def refuse_idle(idle: Idle, settings: Any, flags: Mapping[str, Any]) -> None:
    """Raise UsageError if a flag was given that has no effect beside the other settings."""
    for names, is_idle, why in idle:
        for name in names:
            if flags.get(name) is not None and is_idle(settings):
                raise UsageError(f"--{name.replace('_', '-')} has no effect {why}")
