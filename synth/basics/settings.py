"""Settings: frozen dataclasses whose fields carry a help text and limits. The commands read them, so no torch here."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


def setting(default: Any, help_text: str, **limits: Any) -> Any:
    """A field with its default, the help text of its command-line option, and the values that it accepts.

    Args:
        limits: `choices`, or a range by `at_least` or `above`, and `at_most` or `below`. None is always accepted. With
            `rare=True` the flag shows in `--help-all` only.
    """
    return dataclasses.field(default=default, metadata={"help": help_text, **limits})


def require(condition: bool, message: str) -> None:
    """Raise ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings whose fields are checked against their limits. Raises ValueError for a value outside its limits."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                check(field.name.replace("_", " "), value, field.metadata)


def check(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raise ValueError if the value is outside its limits. NaN and infinity are outside every range."""
    choices = limits.get("choices")
    require(choices is None or value in choices, f"{name} must be one of {', '.join(choices or ())}, not {value}")
    missed = [words for words, holds in RANGES.items() if words in limits and not holds(value, limits[words])]
    require(not missed, f"{name} must be {range_words(limits)}, not {value}")
    require(not isinstance(value, float) or math.isfinite(value), f"{name} must be a finite number, not {value}")


RANGES: dict[str, Callable[[Any, Any], bool]] = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}


def range_words(limits: Mapping[str, Any]) -> str:
    """The range in words, such as `1 or more`, `within 0 and 32`, `above 0 and at most 1`."""
    found = {words: limits[words] for words in RANGES if words in limits}
    if list(found) == ["at_least"]:
        return f"{found['at_least']} or more"
    if list(found) == ["at_least", "at_most"]:
        return f"within {found['at_least']} and {found['at_most']}"
    return " and ".join(f"{words.replace('_', ' ')} {bound}" for words, bound in found.items())


@dataclass(frozen=True, kw_only=True)
class ComputeSettings(Settings):
    """How networks are computed. The choice affects the bytes of the results.

    `auto` chooses by device and network (synth/checkpoint/arithmetic.py).
    """

    precision: str = setting(
        "auto",
        "arithmetic of the networks' layers; images, weights and losses stay float32",
        choices=("auto", "float32", "bfloat16"),
        rare=True,
    )
    layout: str = setting(
        "auto", "order of the networks' maps in memory", choices=("auto", "planes", "channels-last"), rare=True
    )
