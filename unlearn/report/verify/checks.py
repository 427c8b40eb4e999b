"""What a check of a report says: it holds, it is broken, or it was not checked; and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from synth.basics.errors import UserError

HOLDS, BROKEN, NOT_CHECKED = "holds", "broken", "not checked"
Fault = tuple[str, str]  # what, and why
# What computing with a record of the right form, but with details or values that are none, ends in; the statistics module's own
# code fails with an AttributeError on an infinite sum.
SENSELESS = (KeyError, TypeError, ValueError, IndexError, ArithmeticError, AttributeError)
LINE = 2000  # characters


@dataclass(frozen=True)
class Check:
    """One link of the chain."""

    what: str
    state: str
    why: str = ""


def compared(what: str, found: object, wanted: object) -> Check:
    if found == wanted:
        return Check(what, HOLDS)
    return Check(what, BROKEN, f"{shown(found)} instead of {shown(wanted)}")


def shown(value: object) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)[:200]


def told(text: str, longest: int = 200) -> str:
    """What a report says of itself, fit for a terminal: without escape sequences or line ends."""
    return "".join(" " if c.isspace() else c for c in text if c.isprintable() or c.isspace())[:longest]


def looked_up(what: str, look: Callable[[], object], wanted: object, where: str, option: str) -> Check:
    """A comparison with what lies in a file that need not be there. `option` names its place."""
    try:
        return compared(what, look(), wanted)
    except FileNotFoundError:
        return Check(what, NOT_CHECKED, f"{where} is not there: name its place now with {option}")
    except OSError as error:
        return Check(what, NOT_CHECKED, f"{where} can't be read: {(error.strerror or str(error)).lower()}")
    except ValueError as error:  # a path with a zero byte
        return Check(what, NOT_CHECKED, f"{where} can't be read: {error}")
    except UserError as error:
        return Check(what, NOT_CHECKED, str(error))


def all_hold(what: str, faults: Iterable[Fault]) -> Iterator[Check]:
    """One check that holds, or a broken one for each fault."""
    none = True
    for name, why in faults:
        none = False
        yield Check(name, BROKEN, why)
    if none:
        yield Check(what, HOLDS)


def counted(checks: Iterable[Check]) -> str:
    """`15 checks hold, 1 is broken, 0 could not be checked`."""
    states = [check.state for check in checks]
    holding, broken, unknown = (states.count(state) for state in (HOLDS, BROKEN, NOT_CHECKED))
    return (
        f"{holding} check{' holds' if holding == 1 else 's hold'}, {broken} {'is' if broken == 1 else 'are'} broken, "
        f"{unknown} could not be checked"
    )
