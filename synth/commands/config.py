"""`--config FILE`: a command starts from the settings that an earlier one wrote. Options that are given come first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from synth.basics.errors import UsageError
from synth.basics.foreign_json import parse_object
from synth.basics.regular_files import read_regular
from synth.commands.options import Decorator, option

LARGEST = 2**28  # bytes, as of an index
Options = Callable[[Mapping[str, Any]], Mapping[str, Any]]  # the file's content -> values by option name


def config_option(written: str, options_of: Options = lambda content: content) -> Decorator:
    """The option. `written` is the file's name for the help; `options_of` gives the options that the file stands
    for.
    """

    def read(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
        if path is None:
            return
        known = {p.name: p for p in ctx.command.get_params(ctx)}
        content = read_settings(path)
        try:
            values = {name: value for name, value in options_of(content).items() if value is not None}
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"--config {path} is not as a command writes it: name another file") from error
        check_command(path, values.pop("command", None), ctx)
        unknown = sorted(name for name in values if name not in known)
        if unknown:
            flag = unknown[0].replace("_", "-")
            raise UsageError(f"{path} has the setting {unknown[0]}, but {ctx.command_path} has no option --{flag}")
        for name, value in values.items():
            check_kind(path, known[name], value, ctx)
        ctx.default_map = {**(ctx.default_map or {}), **values}

    return option(
        "--config",
        group="Where",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=read,
        help=f"start from the settings in this file, such as {written}; options given here replace them",
    )


def unlike_defaults(values: Mapping[str, Any], defaults: Any) -> dict[str, Any]:
    """The values that differ from these settings. A default need not be given, and beside others it may have no
    effect.
    """
    return {name: value for name, value in values.items() if value != getattr(defaults, name, None)}


def check_kind(path: Path, param: click.Parameter, value: Any, ctx: click.Context) -> None:
    """Raise UsageError for a value that the option can't be, such as a list for a number."""
    try:
        param.type_cast_value(ctx, value)
    except (TypeError, AttributeError, ValueError) as error:
        given = str(value)[:80]
        raise UsageError(f"{path} has {given!r} for {param.name}, which is no value of that option") from error


def check_command(path: Path, written_by: str | None, ctx: click.Context) -> None:
    if written_by is not None and written_by != ctx.command.name:
        raise UsageError(f"{path} was written by '{written_by}', not by '{ctx.command.name}': use it with {written_by}")


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UsageError where the file is none."""
    try:
        return parse_object(read_regular(path, LARGEST))
    except FileNotFoundError:
        raise UsageError(f"--config {path}: there is no such file") from None
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(
            f"--config {path} is not a JSON file of settings ({str(error)[:80]}): name a file that a command wrote"
        ) from error
