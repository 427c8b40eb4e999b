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
LONGEST = 4096  # characters of a setting, as of a path
Options = Callable[[Mapping[str, Any]], Mapping[str, Any]]  # the file's content -> values by option name


def config_option(written: str, options_of: Options = lambda content: content) -> Decorator:
    """The option. `written` is the file's name for the help; `options_of` gives the options that the file stands
    for.
    """

    def read(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
        if path is None:
            return
        known = {p.name: p for p in ctx.command.get_params(ctx)}
        values = as_given(path, options_of)
        check_command(path, values.pop("command", None), ctx)
        unknown = sorted(name for name in values if name not in known)
        if unknown:
            flag = unknown[0].replace("_", "-")
            raise UsageError(
                f"{path} has the setting {unknown[0]}, but {ctx.command_path} has no option --{flag}: name a file that "
                "this command wrote"
            )
        fitting = {name: as_often_as_taken(value, known[name]) for name, value in values.items()}
        ctx.default_map = {**(ctx.default_map or {}), **fitting}

    return option(
        "--config",
        group="Where",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=read,
        help=f"start from the settings in this file, such as {written}; options given here replace them",
    )


def as_given(path: Path, options_of: Options) -> dict[str, Any]:
    """The options that the file stands for, each as one could write it on the command line.

    click converts the text of an option, and says what is wrong with it; of other values it expects that they fit.
    """
    content = read_settings(path)
    try:
        values = options_of(content)
        return {name: written(value) for name, value in values.items() if value is not None}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f" ({error})" if isinstance(error, ValueError) else ""
        raise UsageError(
            f"--config {path} does not hold the settings of this command{why}: name a file that this command wrote"
        ) from error


def written(value: Any) -> Any:
    """A number or text as text, a list as one of texts. Raises ValueError for anything else."""
    if isinstance(value, list):
        return [written(part) for part in value]
    if isinstance(value, bool):
        return value
    if not isinstance(value, (str, int, float)):
        raise ValueError("a setting is an object or null")
    text = str(value)
    if len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"a setting is longer than {LONGEST:,} characters, or not printable")
    return text


def as_often_as_taken(value: Any, param: click.Parameter) -> Any:
    """A list for an option that may be given several times, and one text for any other: `1,2` for a list of classes."""
    if param.nargs != 1 or getattr(param, "multiple", False):
        return value if isinstance(value, list) else [value]
    return ",".join(map(str, value)) if isinstance(value, list) else value


def unlike_defaults(values: Mapping[str, Any], defaults: Any) -> dict[str, Any]:
    """The values that differ from these settings. A default need not be given, and beside others it may have no
    effect.
    """
    return {name: value for name, value in values.items() if value != getattr(defaults, name, None)}


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
            f"--config {path} is not a JSON file of settings: name a file that this command wrote"
        ) from error
