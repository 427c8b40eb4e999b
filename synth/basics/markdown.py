"""Markdown from a template, and text from elsewhere inside it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any


def rendered(package: str, template: str, **values: Any) -> str:
    """The template, a file of the package, with these values. Nothing in the values is escaped."""
    from jinja2 import Environment, StrictUndefined  # here, because most commands that import this write no card

    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    return environment.from_string(files(package).joinpath(template).read_text()).render(**values)


def escaped(text: str) -> str:
    """The text as Markdown shows it: nothing in it is a link, a table or HTML."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()<>#|!&~" else sign for sign in text if sign.isprintable())
