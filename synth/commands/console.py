"""What both command lines share: errors as one line, flags made from settings dataclasses, lists of classes."""

from __future__ import annotations

import dataclasses
import re
import signal
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

import click

from synth.basics.errors import INTERRUPTED, UsageError, UserError


class Console(click.Group):
    """A group of commands whose errors are one line on stderr: exit code 2 for usage, 1 for failure."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def main(self, *args: Any, **kwargs: Any) -> Any:
        # As Ctrl-C, also where a shell's `&` has it ignored: spot machines get SIGTERM and some grace.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        kwargs["standalone_mode"] = False
        try:
            sys.exit(super().main(*args, **kwargs) or 0)
        except click.UsageError as error:
            hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
            fail(f"{error.format_message().rstrip('.')}{hint}", 2)
        except click.ClickException as error:
            fail(error.format_message(), 1)
        except UserError as error:
            fail(str(error), error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            fail("interrupted", INTERRUPTED)
        except BrokenPipeError:
            sys.stderr.close()  # the reader of our output is gone, as with `| head`
            sys.exit(1)


def fail(message: str, code: int) -> typing.NoReturn:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(code)


class ClassList(click.ParamType):
    """Class indices such as `0`, `3,8` or `1-9`, as a sorted tuple."""

    name = "classes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        chosen: set[int] = set()
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
            if match is None or int(match[2] or match[1]) < int(match[1]):
                self.fail(f"'{value}' is no list of classes: write their numbers, like 0 or 3,8 or 1-9", param, ctx)
            chosen.update(range(int(match[1]), int(match[2] or match[1]) + 1))
        return tuple(sorted(chosen))


def settings_flags(*settings_classes: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Click options for every field of the settings classes, each None unless given; the defaults stand in the help."""
    owners: dict[str, list[tuple[type, dataclasses.Field[Any]]]] = {}
    for settings_class in settings_classes:
        for field in dataclasses.fields(settings_class):
            owners.setdefault(field.name, []).append((settings_class, field))

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, fields in reversed(owners.items()):
            command = settings_flag(name, [field for _, field in fields], fields[0][0])(command)
        return command

    return decorate


def settings_flag(name: str, fields: list[dataclasses.Field[Any]], owner: type) -> Callable[..., Any]:
    flag = "--" + name.replace("_", "-")
    kind = typing.get_type_hints(owner)[name]
    kind = next((t for t in typing.get_args(kind) if t is not type(None)), kind)
    default = " or ".join(dict.fromkeys(show_default(field.default) for field in fields))
    help_text = f"{fields[0].metadata['help']}  [default: {default}]"
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help_text)
    choices = fields[0].metadata.get("choices")
    return click.option(flag, name, type=click.Choice(choices) if choices else kind, default=None, help=help_text)


def show_default(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def settings_from_flags(base: Any, flags: Mapping[str, Any], method: str) -> Any:
    """`base` with the flags that were given. A flag that the method doesn't have is refused rather than ignored."""
    given = {name: value for name, value in flags.items() if value is not None}
    known = {field.name for field in dataclasses.fields(base)}
    for name in given:
        if name not in known:
            raise UsageError(f"--{name.replace('_', '-')} has no effect on {method}: leave it out")
    try:
        return dataclasses.replace(base, **given)
    except ValueError as error:
        raise UsageError(f"{error}") from error
