"""Standard output, flushed line by line. Its errors are one line: a full device, or a reader that has gone."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from synth.basics.errors import UserError

CURES = {
    errno.ENOSPC: "the device is full: free some space or send the output elsewhere, and start the command again",
    errno.EPIPE: "its reader has ended",
}


class LostOutputError(UserError):
    """Standard output cannot be written any more."""


class Output:
    """A text stream that raises LostOutputError in place of OSError."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with one_line_error():
            return self.stream.write(text)

    def flush(self) -> None:
        with one_line_error():
            self.stream.flush()


@contextmanager
def one_line_error() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        cure = CURES.get(error.errno or 0, f"{error.strerror or error}: send the output elsewhere")
        raise LostOutputError(f"standard output: {cure}") from error


@contextmanager
def checked_output() -> Iterator[None]:
    """Put an Output in the place of standard output, and flush it at the end.

    Raises LostOutputError. Nothing more is written then, or Python would fail once more when it flushes at its end.
    """
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(line_buffering=True)
    output: Any = Output(stream)
    sys.stdout = output
    try:
        yield
        output.flush()
    except LostOutputError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        raise
    finally:
        sys.stdout = stream
