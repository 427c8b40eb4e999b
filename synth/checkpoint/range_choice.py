"""Ranges of a regressor's target as a person writes them, such as `60:90`. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from synth.basics.errors import UsageError
from synth.checkpoint.class_choice import Classes, choose_classes, class_words
from synth.checkpoint.target import Bins, Target

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"\s*({NUMBER})\s*:\s*({NUMBER})\s*", re.ASCII)
BINS = re.compile("classes|class")  # of which a regressor has bins
PREFIXES = ("index:", "name:")


class Named(Protocol):
    """A card: of a checkpoint, or of a run of shards."""

    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def target(self) -> Target | None: ...


def parse_range(text: str) -> tuple[float, float] | None:
    """The two numbers of a text such as `60:90`; None if the text is nothing of the kind."""
    match = RANGE.fullmatch(text)
    return None if match is None else (float(match[1]), float(match[2]))


def choose(asked: Classes, card: Named, what: str = "class", owner: str = "the teacher") -> tuple[int, ...]:
    """The numbers of the classes, or of the bins, that a person asks for, in ascending order.

    Of a regressor they are `Bins`, and a text may also be a range such as `60:90`. The other arguments and errors are
    those of `choose_classes`.
    """
    ranges = [found for text in asked if isinstance(text, str) and (found := parse_range(text))]
    if card.target is None:
        if ranges:
            low, high = ranges[0]
            raise UsageError(f"{low:g}:{high:g} is a range, but {owner} is a classifier: name its classes")
        return choose_classes(asked, card.class_names, what, owner)
    others = [text for text in asked if isinstance(text, int) or parse_range(text) is None]
    for text in others:
        if not isinstance(text, str) or text.startswith(PREFIXES):
            continue
        if ":" in text or not any(map(str.isdigit, text)):
            raise UsageError(f"'{text}' is no range: write two numbers, such as 60:90")
    bins = {number for found in ranges for number in card.target.bins_within(*found)}
    return Bins(sorted(bins.union(choose_classes(others, card.class_names, what, owner))))


def words_for(numbers: Sequence[int], card: Named) -> str:
    """The classes in words (`class_words`); of a regressor the range, such as `the range 60:90 of angle`."""
    if card.target is None:
        return class_words(numbers, card.class_names)
    return card.target.words_for(numbers) or BINS.sub(
        lambda found: "bins" if found[0] == "classes" else "bin", class_words(numbers, card.class_names), count=1
    )
