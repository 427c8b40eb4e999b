"""A font that can draw a text in any script. Text that no font here can draw is shown by escapes, not by boxes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont | None  # None: Pillow's own
SIZE = 11  # pixels, as high as Pillow's own font
LATIN = 0x100  # Pillow's own font can draw the characters below


def drawable(words: str) -> tuple[str, Font]:
    """The text and the font to draw it with. Characters that no font has are escaped, such as \\u732b."""
    if all(ord(character) < LATIN for character in words):
        return words, None
    for path in fonts():
        if set(map(ord, words)) <= characters(path):
            return words, ImageFont.truetype(path, SIZE)
    path = next(fonts())
    known = characters(path)
    shown = "".join(c if ord(c) in known else c.encode("ascii", "backslashreplace").decode() for c in words)
    return shown, ImageFont.truetype(path, SIZE)


def fonts() -> Iterator[str]:
    """Font files: first matplotlib's own, which is always there, then those of this machine."""
    import matplotlib

    yield str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    yield from system_fonts()


@cache
def system_fonts() -> list[str]:
    from matplotlib.font_manager import findSystemFonts

    return sorted(findSystemFonts())


@cache
def characters(path: str) -> frozenset[int]:
    """The characters that a font file can draw; none if the file is damaged."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (RuntimeError, OSError):
        return frozenset()


def fitting(words: str, font: Font, room: int) -> str:
    """The beginning of the text that takes at most `room` pixels. Pillow's own font is not measured."""
    if font is None:
        return words
    while words and font.getlength(words) > room:
        words = words[:-1]
    return words
