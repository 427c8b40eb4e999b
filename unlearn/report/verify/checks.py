"""The outcome of a check of a report: it holds, it is broken, or it was not checked; and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

HOLDS, BROKEN, NOT_CHECKED = "holds", "broken", "not checked"
Fault = tuple[str, str]  # what is wrong, and why


@dataclass(frozen=True)
class Check:
    """One line of the answer of `unlearn verify`."""

    what: str
    state: str
    why: str = ""


def compared(what: str, found: object, expected: object) -> Check:
    if found == expected:
        return Check(what, HOLDS)
    return Check(what, BROKEN, f"{shorten_text(found)} instead of {shorten_text(expected)}")


def shorten_text(value: object) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)[:200]


def unreadable(what: str, where: str, error: OSError, option: str) -> Check:
    """A file that is missing or can't be read accuses nobody. `option` names its place."""
    if isinstance(error, FileNotFoundError):
        return Check(what, NOT_CHECKED, f"{where} is not there: name its place now with {option}")
    return Check(what, NOT_CHECKED, f"{where} can't be read: {(error.strerror or str(error)).lower()}")


def all_hold(what: str, faults: Iterable[Fault]) -> Iterator[Check]:
    """One check that holds, or one broken check for each fault."""
    checks = [Check(name, BROKEN, why) for name, why in faults]
    yield from checks or [Check(what, HOLDS)]


def summary(checks: Iterable[Check]) -> str:
    """`15 checks hold, 1 is broken, 0 could not be checked`."""
    states = [check.state for check in checks]
    holding, broken, unknown = (states.count(state) for state in (HOLDS, BROKEN, NOT_CHECKED))
    return (
        f"{holding} check{' holds' if holding == 1 else 's hold'}, {broken} {'is' if broken == 1 else 'are'} broken, "
        f"{unknown} could not be checked"
    )
