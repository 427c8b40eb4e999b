"""Errors that a person can cause and cure. The command lines print them as one line, without a traceback."""

from __future__ import annotations

INTERRUPTED = 130  # the shell's code for a program that Ctrl-C ended


class UserError(Exception):
    """Something went wrong that its message names, together with the cure. Exit code 1."""

    exit_code = 1


class HopelessError(UserError):
    """Settings that lead nowhere, such as filters that drop every sample or a training that diverges."""


class UsageError(UserError):
    """A request that cannot be right whatever the state of the world. Exit code 2."""

    exit_code = 2


class InterruptedRunError(UserError):
    """Ctrl-C or SIGTERM, with words that say what is kept and how to go on."""

    exit_code = INTERRUPTED
