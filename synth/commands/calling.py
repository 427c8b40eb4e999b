"""A command's parameters from Python: what the caller gives, checked as on the command line, and the defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click

from synth.basics.errors import UsageError
from synth.basics.progress import no_progress

P = ParamSpec("P")
R = TypeVar("R")


def parameters(command: click.Command, given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every parameter of a command, by name. None stands for the default, as if it were not given.

    A single value stands for a list of one. The environment is not read.

    Raises:
        UsageError: the command has no such parameter, a required one is missing, or a value is out of range.
    """
    known = sorted(param.name for param in command.params if param.expose_value and param.name)
    unknown = sorted(set(given).difference(known))
    if unknown:
        raise UsageError(f"{command.name} has no option {unknown[0]}: it has {', '.join(known)}")
    several = {param.name for param in command.params if getattr(param, "multiple", False) or param.nargs != 1}
    chosen = {
        name: [value] if name in several and not isinstance(value, list | tuple) else value
        for name, value in given.items()
        if value is not None
    }
    try:
        return command.make_context(command.name, [], default_map=chosen, auto_envvar_prefix=None).params
    except click.UsageError as error:
        raise UsageError(f"{command.name}: {error.format_message().rstrip('.')}") from error


def quiet_elsewhere(call: Callable[P, R]) -> Callable[P, R]:
    """The call shows no progress on the terminal if its lines for a person (`say`) go elsewhere."""

    @wraps(call)
    def quiet(*args: P.args, **kwargs: P.kwargs) -> R:
        if kwargs.get("say", print) is print:
            return call(*args, **kwargs)
        with no_progress():
            return call(*args, **kwargs)

    return quiet
