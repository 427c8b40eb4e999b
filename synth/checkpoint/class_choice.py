"""Classes as a person writes them: by number, by name, or as a range of numbers. Imports no torch."""

from __future__ import annotations

import csv
import difflib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from synth.basics.errors import UsageError
from synth.checkpoint.card import check_classes

Classes = Sequence[int | str]  # an int is a class's number; a str is what a person wrote

RANGE = re.compile(r"(\d{1,6})\s*(?:-\s*(\d{1,6}))?", re.ASCII)
NUMBER, NAME = "index:", "name:"
SHOWN = 10  # classes that a line lists


def choose_classes(
    asked: Classes, class_names: Sequence[str], what: str = "class", owner: str = "the teacher"
) -> tuple[int, ...]:
    """The numbers of the classes, in ascending order and each once.

    A text is a class's name, its number, a range of numbers (`1-9`), or a list of these with commas between them. A
    name with commas stands in double quotes in such a list. `index:2` is always class number 2, and `name:2` always the
    class that is called 2.

    Args:
        what: the kind of class in an error, such as "forget class".
        owner: who has the classes, in an error.

    Raises:
        UsageError: there is no such class, or the text may stand for different classes.
    """
    reader = Reader(tuple(class_names), what, owner)
    found: set[int] = set()
    for text in asked:
        found |= reader.numbered(text, text) if isinstance(text, int) else reader.read(text.strip())
    return tuple(sorted(found))


@dataclass(frozen=True)
class Reader:
    """Finds the numbers of classes in a text. The fields are those of `choose_classes`."""

    class_names: tuple[str, ...]
    what: str
    owner: str

    def read(self, text: str) -> set[int]:
        """The classes of a text, which may be a list."""
        try:
            parts = [part.strip() for part in next(csv.reader([text], skipinitialspace=True)) or [""]]
        except csv.Error:
            self.refuse(text)
        whole = self.named(text.removeprefix(NAME))
        if len(parts) == 1 or (whole and text.startswith(NAME)):
            return self.one(text if whole else parts[0])
        if whole and all(map(self.named, parts)):
            raise UsageError(
                f"{self.what} '{text}' is one class, and also a list of others: write {NAME}{text} for the one, or "
                "give the option once per class"
            )
        return whole or set().union(*map(self.one, parts))

    def one(self, text: str) -> set[int]:
        """The class that a text stands for, or the classes of a range."""
        kind = next((prefix for prefix in (NUMBER, NAME) if text.startswith(prefix)), "")
        rest = text.removeprefix(kind)
        exact = set() if kind == NUMBER else self.named(rest)
        match = RANGE.fullmatch(rest)
        if match is None or (kind == NAME and exact):
            return exact or self.refuse(rest)
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(f"{self.what} '{text}' is no range: write the smaller number first, as in 1-9")
        if kind == NUMBER:
            return self.numbered(first, last)
        every = (
            [self.named(str(n)) for n in range(first, last + 1)] if last - first < len(self.class_names) else [set()]
        )
        by_name = exact or set().union(*every)
        is_named = bool(exact) or all(every)
        if is_named and (kind == NAME or last >= len(self.class_names)):
            return by_name
        if kind == NAME:
            self.refuse(rest)
        by_number = self.numbered(first, last)
        if by_name - by_number or (exact and exact != by_number):
            raise UsageError(
                f"{self.what} '{text}' may be {class_words(by_number, self.class_names)}, or "
                f"{class_words(by_name, self.class_names)}: write {NUMBER}{text} or {NAME}{text}"
            )
        return by_number

    def numbered(self, first: int, last: int) -> set[int]:
        """The classes of a range of numbers."""
        check_classes([last], len(self.class_names), self.what, self.owner)
        return set(range(first, last + 1))

    def named(self, name: str) -> set[int]:
        """The class with this name, or nothing. Raises UsageError if several classes have it."""
        found = [number for number, other in enumerate(self.class_names) if other == name]
        if len(found) > 1:
            raise UsageError(
                f"the classes {', '.join(map(str, found))} are all called '{name}': choose by number, such as "
                f"{NUMBER}{found[0]}"
            )
        return set(found)

    def refuse(self, name: str) -> NoReturn:
        """Raise UsageError for a name that no class has, with the names that are nearest to it."""
        folded = {other.casefold(): other for other in self.class_names}
        near = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)
        near += [other for other in folded if len(name) > 2 and name.casefold() in other and other not in near][:3]
        shown = ", ".join(f"'{folded[other]}'" for other in near)
        if near:
            raise UsageError(f"{self.owner} has no {self.what} '{name}': the nearest names are {shown}")
        there = ", ".join(f"'{other}'" for other in self.class_names[:SHOWN])
        more = ", ..." if len(self.class_names) > SHOWN else ""
        raise UsageError(f"{self.owner} has no {self.what} '{name}': write a number or a name of {there}{more}")


def class_words(numbers: Iterable[int], class_names: Sequence[str]) -> str:
    """Such as `class 2, 'cat'` or `classes 2 'cat', 5 'dog' and 7 more`. A name that is only its number is left out."""
    chosen = sorted(numbers)
    if len(chosen) == 1:
        name = class_names[chosen[0]]
        return f"class {chosen[0]}" + ("" if name == str(chosen[0]) else f", '{name}'")
    each = [f"{n}" if class_names[n] == str(n) else f"{n} '{class_names[n]}'" for n in chosen[:SHOWN]]
    more = f" and {len(chosen) - SHOWN:,} more" if len(chosen) > SHOWN else ""
    return f"classes {', '.join(each)}{more}"


def as_options(option: str, numbers: Sequence[int], class_names: Sequence[str]) -> str:
    """Options of a command that choose these classes, such as `--without 0,2` or `--without cat --without dog`."""
    if all(class_names[n] == str(n) for n in numbers):
        return f"{option} {','.join(map(str, numbers))}"
    names = [class_names[n] for n in numbers]
    return " ".join(f"{option} {shlex.quote(f'{NAME}{name}' if name.isdigit() else name)}" for name in names)
