"""What the commands print. Every word that reaches the terminal goes through `echo` or `say`.

Much of it comes from files of others: names in an index, the host in a lock, the paths in a report. Such a word could
hold an escape sequence that rewrites the screen, or a character that turns the order of the letters around. Those are
shown as Python writes them, such as \\x1b. Names in any script stay as they are.
"""

from __future__ import annotations

import sys
import unicodedata

import click

from synth.basics.progress import clear_lines

LONGEST_LINE = 2000  # characters
JOINERS = "\u200c\u200d"  # Persian and Indian scripts need them


def echo(text: str, err: bool = False) -> None:
    """Print text that may have several lines and tabs, to stdout or stderr."""
    clear_lines()
    stream = sys.stderr if err else sys.stdout
    text = "".join(c if c in "\n\t" else shown(c) for c in text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # A terminal whose encoding lacks a character gets its number, such as \u03b1.
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def say(line: str, err: bool = False) -> None:
    """Print one line, to stdout or stderr. Line breaks in it become spaces, and a very long line is cut."""
    words = " ".join(line.split())
    echo(words if len(words) <= LONGEST_LINE else f"{words[:LONGEST_LINE]} ...", err)


def note(line: str) -> None:
    """Print one line that is no result, to stderr."""
    say(line, err=True)


def shown(character: str) -> str:
    """The character, or its number where a terminal might take it for a command. Spaces of all scripts stay."""
    if character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()
