"""What both command lines share: errors as one line, lists of numbers, and classes."""

from __future__ import annotations

import os
import re
import signal
import sys
import typing
from typing import Any

import click

from synth.basics.byte_sizes import Bytes, parse_bytes
from synth.basics.errors import INTERRUPTED, UserError
from synth.basics.out_of_memory import memory_in_words
from synth.basics.way_on import START_AGAIN
from synth.commands.output import checked_output
from synth.commands.printing import say


class Console(click.Group):
    """A group of commands whose errors are one line on stderr: exit code 2 for usage, 1 for failure."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of the work, not of the alphabet

    def main(self, *args: Any, **kwargs: Any) -> Any:
        # SIGTERM acts as Ctrl-C does, also where a shell's `&` ignores Ctrl-C: spot machines get SIGTERM and a little
        # time.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        # Python processes that this one starts do not search the working folder for modules: Ray's, or those that load
        # data on macOS. Python 3.11 and later heed this.
        os.environ.setdefault("PYTHONSAFEPATH", "1")
        kwargs["standalone_mode"] = False
        try:
            with checked_output(), memory_in_words():
                code = super().main(*args, **kwargs) or 0
            sys.exit(code)
        except click.UsageError as error:
            hint = f" (see '{error.ctx.command_path} --help')" if error.ctx else ""
            fail(f"{error.format_message().rstrip('.')}{hint}", 2)
        except click.ClickException as error:
            fail(error.format_message(), 1)
        except UserError as error:
            fail(str(error), error.exit_code)
        except (KeyboardInterrupt, click.Abort):
            fail(f"interrupted: {START_AGAIN}", INTERRUPTED)
        except BrokenPipeError:
            sys.stderr.close()  # the reader of our progress has gone, as with `2>&1 | head`
            sys.exit(1)


def fail(message: str, code: int) -> typing.NoReturn:
    say(f"error: {message}", err=True)
    sys.exit(code)


class NumberList(click.ParamType):
    """Numbers such as `0`, `3,8` or `1-9`, as a sorted tuple."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)  # a list comes from --config
        chosen: set[int] = set()
        for part in text.split(","):
            match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
            if match is None or int(match[2] or match[1]) < int(match[1]):
                self.fail(f"'{text}' is no list of numbers: write it like 0 or 3,8 or 1-9", param, ctx)
            chosen.update(range(int(match[1]), int(match[2] or match[1]) + 1))
        return tuple(sorted(chosen))


class ShardSize(click.ParamType):
    """Images such as `500`, as an int, or bytes such as `100MB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | Bytes:
        if isinstance(value, int | Bytes):
            return value
        try:
            return int(value) if str(value).strip().isdecimal() else Bytes(parse_bytes(str(value)))
        except ValueError as error:
            self.fail(f"{error}, or as a number of images like 500", param, ctx)


class ClassText(click.ParamType):
    """Classes by number or name, for an option that may be given several times.

    Only the checkpoint knows the names, so the text stays as it is (`synth.checkpoint.class_choice` reads it).
    """

    name = "classes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return value if isinstance(value, int) else str(value)  # a number comes from --config

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv]  # click would split it at its spaces
