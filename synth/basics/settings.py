"""Settings: frozen dataclasses whose fields carry a help text and limits. The commands read them, so no torch here."""

from __future__ import annotations

import dataclasses
import math
import operator
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any

# Every setting that costs time or memory has a maximum, `most`, because settings also come from the files of others.
# Nobody needs so much: the maximum only keeps a file from asking for years or for all memory.
MOST_STEPS = 10**7
MOST_IMAGES = 10**6
MOST_IN_BATCH = 10**5  # images
LONGEST_TEXT = 1000  # characters of a setting


def setting(default: Any, help_text: str, **limits: Any) -> Any:
    """A field with its default, the help text of its command-line option, and the values that it accepts.

    Args:
        limits: `choices`, or a range by `at_least` or `above`, and `at_most` or `below`; and `most`, a maximum that no
            user meets, named only to those who exceed it. None is always accepted. With `rare=True` the flag shows in
            `--help-all` only.
    """
    return dataclasses.field(default=default, metadata={"help": help_text, **limits})


def require(condition: bool, message: str) -> None:
    """Raise ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings whose fields are checked against their types and limits. Raises ValueError for any other value.

    A whole number in place of a fraction becomes one, so that equal settings have equal bytes as JSON.
    """

    def __post_init__(self) -> None:
        settings_class: Any = type(self)
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), field.name.replace("_", " ")
            types = types_of(settings_class)[field.name]
            check_type(name, value, types)
            if float in types and int not in types and isinstance(value, int):
                object.__setattr__(self, field.name, float(value))
            if value is not None:
                check(name, value, field.metadata)


@cache
def types_of(settings_class: Any) -> Mapping[str, tuple[type, ...]]:
    """The types that each setting may have, by its name."""
    hints = typing.get_type_hints(settings_class)
    return {name: typing.get_args(hint) or (hint,) for name, hint in hints.items()}


TYPES: dict[type, tuple[type, str]] = {
    bool: (bool, "true or false"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, f"text of at most {LONGEST_TEXT} printable characters"),
    type(None): (type(None), "left out"),
}


def check_type(name: str, value: Any, types: tuple[type, ...]) -> None:
    """Raise ValueError if the value has none of the types, as far as TYPES knows them. True is no number."""
    if not set(types) <= set(TYPES):
        return
    known = [TYPES[kind] for kind in types]
    fits = any(isinstance(value, kind) and isinstance(value, bool) <= (kind is bool) for kind, _ in known)
    fits = fits and not (isinstance(value, str) and (len(value) > LONGEST_TEXT or not value.isprintable()))
    require(fits, f"{name} must be {' or '.join(words for _, words in known)}, not {shortened(repr(value))}")


def shortened(value: Any) -> str:
    """The value as a few printable characters."""
    text = "".join(character for character in str(value)[:81] if character.isprintable())
    return text if len(text) <= 80 else f"{text[:80]}..."


def check(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raise ValueError if the value is outside its limits. NaN and infinity are outside every range."""
    choices = limits.get("choices")
    require(
        choices is None or value in choices, f"{name} must be one of {', '.join(choices or ())}, not {shortened(value)}"
    )
    missed = [words for words, holds in RANGES.items() if words in limits and not holds(value, limits[words])]
    require(not missed, f"{name} must be {range_words(limits)}, not {shortened(value)}")
    most = limits.get("most", math.inf)
    require(isinstance(value, str) or value <= most, f"{name} must be at most {most:,}, not {shortened(value)}")
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
