"""Errors that a person can cause and cure. The commands print them as one line, without a traceback."""

from __future__ import annotations

import re

COLOURS = re.compile("\x1b\\[[0-9;]*m")  # of a terminal
INTERRUPTED = 130  # the shell's code for a program that Ctrl-C ended


class UserError(Exception):
    """An error whose message names the cause and the cure. Exit code 1."""

    exit_code = 1


class HopelessError(UserError):
    """Settings that cannot give a result, such as filters that drop every sample, or training that diverges."""


class UsageError(UserError):
    """A request that is wrong in itself, such as options that exclude each other. Exit code 2."""

    exit_code = 2


class InterruptedRunError(UserError):
    """Ctrl-C or SIGTERM ended a run. The message says what is kept and how to go on."""

    exit_code = INTERRUPTED


def first_line(error: BaseException) -> str:
    """The first line of another library's error without its colours and full stop; the error's type without a text."""
    plain = COLOURS.sub("", str(error))
    return (plain.strip().splitlines() or [type(error).__name__])[0].rstrip(".")
