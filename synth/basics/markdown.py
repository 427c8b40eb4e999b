"""Text from elsewhere inside Markdown."""


def escaped(text: str) -> str:
    """The text as Markdown shows it: nothing in it is a link, a table or HTML."""
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()<>#|!&~" else sign for sign in text if sign.isprintable())
