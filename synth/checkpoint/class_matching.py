"""The classes that two networks have in common, by their names. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from synth.basics.errors import UsageError

SHOWN = 5  # names of each side in an error


def matching_classes(
    ours: Sequence[str], theirs: Sequence[str], whose: str, equal_indices: bool = False
) -> Mapping[int, int]:
    """The number that each class has in another network. Classes that the other network lacks are left out.

    Capital letters, spaces, hyphens and underscores may differ. A name that several classes of one network have matches
    nothing, unless both networks have the same names in the same order.

    Args:
        ours: the names of the run's classes.
        theirs: the names of the other network's classes.
        whose: the other network, in an error.
        equal_indices: match class 0 with class 0 and so on, whatever their names.

    Raises:
        UsageError: the networks have no class in common, or not equally many for equal indices.
    """
    if equal_indices and len(ours) != len(theirs):
        raise UsageError(
            f"--equal-indices needs equally many classes, but the run has {len(ours):,} and {whose} {len(theirs):,}: "
            "leave the option out, so that classes are matched by name"
        )
    if equal_indices or list(ours) == list(theirs):
        return {number: number for number in range(len(ours))}
    if positional(ours) and positional(theirs):
        raise UsageError(
            f"the run has {len(ours):,} classes and {whose} {len(theirs):,}, and both have only numbers for class "
            "names, so classes cannot be matched by name: import both networks again with --classes"
        )
    if numbered(ours) != numbered(theirs):
        nameless = "the run" if numbered(ours) else whose
        raise UsageError(
            f"{nameless} has only numbers for class names, so classes cannot be matched by name: give --equal-indices "
            f"if the classes of both stand in the same order, otherwise import {whose} again with --classes"
        )
    places = unambiguous(theirs)
    found = {number: places[name] for name, number in unambiguous(ours).items() if name in places}
    if not found:
        raise UsageError(
            f"{whose} has no class in common with the run: its classes are {listed(theirs)}, and the run's are "
            f"{listed(ours)}; name a network that knows these classes, or give --equal-indices if only the names differ"
        )
    return dict(sorted(found.items()))


def unambiguous(names: Sequence[str]) -> dict[str, int]:
    """The number of each class by its simple name, without the names that several classes have."""
    counts = Counter(map(simple, names))
    return {simple(name): number for number, name in enumerate(names) if counts[simple(name)] == 1}


def simple(name: str) -> str:
    """The name in small letters, with one space for each run of spaces, hyphens and underscores."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def numbered(class_names: Sequence[str]) -> bool:
    """Whether all classes have numbers for names."""
    return all(name.isdecimal() for name in class_names)


def positional(class_names: Sequence[str]) -> bool:
    """Whether all names are the classes' own numbers, as of a network that was imported without names."""
    return list(class_names) == [str(number) for number in range(len(class_names))]


def listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
