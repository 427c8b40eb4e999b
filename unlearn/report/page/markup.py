"""Small pieces of HTML. Whatever comes in as text is escaped here and nowhere else."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Markup:
    """Text that is HTML already."""

    text: str


Content = Markup | str | int | float | None


def escaped(content: Content) -> str:
    if isinstance(content, Markup):
        return content.text
    return "-" if content is None else html.escape(str(content), quote=True)


def element(tag: str, *content: Content, **attributes: str) -> Markup:
    """`class_` is the attribute class; underscores elsewhere are dashes."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value, quote=True)}"'
        for name, value in attributes.items()
    )
    return Markup(f"<{tag}{given}>{''.join(map(escaped, content))}</{tag}>")


def joined(parts: Sequence[Content], separator: str = "\n") -> Markup:
    return Markup(separator.join(map(escaped, parts)))


def section(title: str, *content: Content) -> Markup:
    name = "".join(c if c.isalnum() else "-" for c in title.lower())
    return element("section", element("h2", title, id=name), joined(content), aria_labelledby=name)


def listing(lines: Sequence[Content]) -> Markup:
    return element("ul", joined([element("li", line) for line in lines]))


def table(caption: str, header: Sequence[Content], rows: Sequence[Sequence[Content]], words: bool = False) -> Markup:
    """A table that scrolls by itself on a narrow screen, by keyboard too. A cell may be a whole <td> already."""
    head = element("thead", element("tr", *(element("th", cell, scope="col") for cell in header)))
    body = element("tbody", joined([table_row(row) for row in rows]))
    whole = element("table", element("caption", caption), head, body, class_="words" if words else "numbers")
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def table_row(row: Sequence[Content]) -> Markup:
    first, *others = row
    cells = [
        cell if isinstance(cell, Markup) and cell.text.startswith("<td") else element("td", cell) for cell in others
    ]
    return element("tr", element("th", first, scope="row"), *cells)


def facts(caption: str, values: Mapping[str, Any]) -> Markup:
    """Names and values, nested ones by dotted names."""
    rows: list[list[Content]] = []
    for name, value in flat(values):
        long = isinstance(value, str) and len(value) >= 32
        rows.append(
            [
                name,
                element("code", value)
                if long
                else ", ".join(map(str, value))
                if isinstance(value, list)
                else str(value),
            ]
        )
    return table(caption, ["", "value"], rows, words=True)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return found


def picture(data: bytes, alt: str, caption: str) -> Markup:
    """A PNG inside the page."""
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    image = f'<img src="{source}" alt="{html.escape(alt, quote=True)}">'
    return element("figure", Markup(image), element("figcaption", caption))


def chart(svg: str, caption: str) -> Markup:
    return element("figure", Markup(svg), element("figcaption", caption))


def folded(summary: str, *content: Content) -> Markup:
    return element("details", element("summary", summary), joined(content))
