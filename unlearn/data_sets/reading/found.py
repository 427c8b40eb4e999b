"""What a reader of files found: images that are not decoded yet, their classes, and what it left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# The names of each split, the best first.
SPLITS = {"train": ("train", "training"), "test": ("test", "testing", "val", "valid", "validation")}
LARGEST_FILE = 2**28  # bytes of one image
LONGEST_NUMBER = 20  # digits of a class's name that is taken for a number


@dataclass(frozen=True)
class Entry:
    """One image. `where` names it in errors; `read` gives its file's bytes, and raises OSError."""

    where: str
    read: Callable[[], bytes]
    class_name: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """The images of one split, in their order."""

    place: str
    entries: Sequence[Entry]
    class_names: Sequence[str]
    all_classes: bool  # whether `class_names` has also the classes without images
    skipped: Counter[str] = field(default_factory=Counter)  # by their kind, such as "hidden" or ".heic"


def names_in_order(entries: Sequence[Entry]) -> list[str]:
    """The classes of the entries: in ascending order if all are numbers, else in the order of the alphabet."""
    names = {entry.class_name for entry in entries}
    numbers = all(name.isdecimal() and len(name) <= LONGEST_NUMBER for name in names)
    return sorted(names, key=int) if numbers else sorted(names)


def listed(skipped: Counter[str]) -> str:
    """Such as `3 hidden, 1 .heic`."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(skipped.items()))
