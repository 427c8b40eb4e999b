"""Names of classes: from --classes, from a file, or from the makers of the weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synth.basics.errors import UsageError, UserError
from synth.basics.foreign_json import parse_json
from synth.basics.regular_files import read_regular

LARGEST = 2**24  # bytes of a file of names
MOST_CLASSES = 10**6


def names_from_option(classes: str) -> tuple[str, ...]:
    """The names in --classes: their number, or the names separated by commas. Raises UsageError for an empty name or
    one that is there twice.
    """
    if classes.isascii() and classes.isdigit():
        if len(classes) > len(str(MOST_CLASSES)) or int(classes) > MOST_CLASSES:
            raise UsageError(f"--classes {classes[:20]} is more than {MOST_CLASSES:,}: give the number of the classes")
        return tuple(map(str, range(int(classes))))
    names = tuple(n.strip() for n in classes.split(","))
    if len(set(names)) < len(names) or "" in names:
        raise UsageError(f"--classes '{classes}' has a name twice, or an empty one: give each class its own name")
    return names


def names_from_file(path: Path) -> tuple[str, ...]:
    """The names in a file: one per line, or JSON in one of the usual forms.

    JSON may be a list of names, an object of names by number ({"0": "cat"}, also with a list such as ["n02123045",
    "cat"], whose last part is the name), or an object of numbers by name ({"cat": 0}). Raises UserError if the file
    cannot be read or has another form.
    """
    try:
        text = read_regular(path, LARGEST).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"cannot read the class names in {path}: {reason}") from error
    if text.lstrip()[:1] not in ("{", "["):
        names = [line.strip() for line in text.splitlines()]
        while names and not names[-1]:
            names.pop()
    else:
        try:
            names = names_in_json(parse_json(text))
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f'{path} has no class names: write one name per line, ["cat", "dog"], {{"0": "cat"}} or {{"cat": 0}}'
            ) from error
    if not names:
        raise UserError(f"{path} has no class names: write one name per line")
    if "" in names:
        raise UserError(f"{path} has an empty name in line {names.index('') + 1}: give each class a name")
    return told_apart(names)


def names_in_json(raw: Any) -> list[str]:
    """The names in order of their numbers. Raises ValueError, TypeError or KeyError for another form."""
    if isinstance(raw, list):
        return [name_of(value) for value in raw]
    if all(isinstance(value, int) for value in raw.values()):
        raw = {number: name for name, number in raw.items()}
    by_number = {int(number): name_of(value) for number, value in raw.items()}
    return [by_number[number] for number in range(len(by_number))]


def name_of(value: Any) -> str:
    value = value[-1] if isinstance(value, list) else value
    if not isinstance(value, str):
        raise TypeError("a name is not text")
    return value.strip()


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names; those that occur twice, such as ImageNet's two cranes, get their number: `crane (134)`."""
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({number})" for number, name in enumerate(names))
