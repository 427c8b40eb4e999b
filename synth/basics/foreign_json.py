"""JSON that anyone may have written: nothing in it surprises those who use its values.

Python's own reader accepts numbers of thousands of digits, which it then refuses to print, NaN, names that are there
twice, and lists so deep that every later walk through them ends in a RecursionError.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

DEEPEST = 32  # lists and objects inside of each other; our own files have less than ten
MOST_DIGITS = 20  # of a whole number; those of 64 bits have no more


def parse_json(data: bytes | str, constant: Callable[[str], Any] | None = None) -> Any:
    """The value in the data. `constant` gives the value of NaN, Infinity or -Infinity; without it they are refused.

    Raises ValueError, with the cause in a few words, for anything but JSON with finite numbers, whole ones of at most
    `MOST_DIGITS` digits, and distinct names, not deeper than `DEEPEST`.
    """
    reader = READER if constant is None else reader_with(constant)
    try:
        found = reader.decode(data if isinstance(data, str) else data.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    check_values(found)
    return found


def parse_object(data: bytes | str, constant: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """As `parse_json`, for data that must hold one object. Raises ValueError."""
    found = parse_json(data, constant)
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def check_values(found: Any) -> None:
    """Raise ValueError for an infinite number, and for values nested too deeply."""
    level = [found]
    for _ in range(DEEPEST + 1):
        deeper: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict:
                deeper += value.values()
            elif kind is list:
                deeper += value
            elif kind is float and not math.isfinite(value):
                raise ValueError("it has a number that is too large")
        if not deeper:
            return
        level = deeper
    raise ValueError(TOO_DEEP)


def reader_with(constant: Callable[[str], Any]) -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=once, parse_int=whole, parse_constant=constant)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of the pairs. Raises ValueError if a name is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("one of its objects has a name twice")
    return found


def whole(text: str) -> int:
    """Raises ValueError for a number of more digits than any of ours has, before the slow conversion of the digits."""
    if len(text) > MOST_DIGITS:
        raise ValueError(f"it has a whole number of more than {MOST_DIGITS} digits")
    return int(text)


def no_constant(name: str) -> Any:
    raise ValueError(f"it has the number {name}")


TOO_DEEP = f"its lists and objects are nested deeper than {DEEPEST}"
READER = reader_with(no_constant)
