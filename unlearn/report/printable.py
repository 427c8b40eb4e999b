"""Words from a report, made fit for a chart or for a part of a line: anyone can write a report."""

from __future__ import annotations


def printable(text: str, longest: int = 200) -> str:
    """The text without escape sequences and line ends, cut to `longest` characters."""
    return "".join(" " if c.isspace() else c for c in text if c.isprintable() or c.isspace())[:longest]
