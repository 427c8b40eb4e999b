"""Another library's error as a part of one of our lines."""

from __future__ import annotations


def first_line(error: Exception) -> str:
    """The first line of the error's text without its full stop; the error's type if it has no text."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
