"""Things that come one a file, and that other packages can add: methods, measures, data sets, architectures."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any

from synth.basics.declared import declared
from synth.basics.errors import UsageError
from synth.basics.settings import shortened


@dataclass(frozen=True)
class Plugins:
    """Modules of one kind, found by name: our own, and those that installed packages declare as entry points.

    Attributes:
        kind: what one of them is called in an error, such as "synthesis method".
        package: where our own modules are.
        own: the names of our own modules.
        group: the entry point group; an entry `foo = theirs.foo` adds the module `theirs.foo` as `foo`.
    """

    kind: str
    package: str
    own: tuple[str, ...]
    group: str

    def names(self) -> tuple[str, ...]:
        """Our own names first, then the names from outside in alphabetical order."""
        return (*self.own, *sorted(self._outside()))

    def find(self, name: str) -> Any:
        """The module of that name. Raises UsageError where there is none."""
        return import_module(self._module(name))

    def declared(self, name: str) -> SimpleNamespace:
        """The settings and constants of that module, without loading torch. Raises UsageError where there is none."""
        return declared(self._module(name))

    def check(self, name: str) -> None:
        """Raise UsageError where there is no such module."""
        self._module(name)

    def _module(self, name: str) -> str:
        if name in self.own:
            return f"{self.package}.{name}"
        outside = self._outside()
        if name not in outside:
            raise self._unknown(name)
        return outside[name]

    def _unknown(self, name: str) -> UsageError:
        close = get_close_matches(name, self.names(), n=1)
        meant = f"; did you mean '{close[0]}'?" if close else ""
        return UsageError(f"there is no {self.kind} '{shortened(name)}'{meant}: choose {', '.join(self.names())}")

    def _outside(self) -> dict[str, str]:
        """Module by name. A name of our own cannot be taken."""
        return {entry.name: entry.module for entry in entry_points(group=self.group) if entry.name not in self.own}
