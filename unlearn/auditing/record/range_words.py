"""An audit's sentences speak of classes. A regressor forgets a range of its target, and what a person reads says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# The longer phrases first. "per class" and the like count the images of each bin.
OF_RANGES = {
    "calls images by the forgotten class": "predicts values in the forgotten range",
    "calls images by the class": "predicts values in the range",
    "calls images of the class by its name": "predicts values in the range for images of it",
    "that the original calls the forget class": "for which the original gives a value in the forget range",
    "that the original calls their retain class": "for which the original gives their value, to a bin's width",
    "label per class": "label per bin",
    "labels per class": "labels per bin",
    "images per class": "images per bin",
    "images of every class": "images of every bin",
    "for each class, one row per class": "for each bin, one row per bin",
    "the forgotten class": "the forgotten range",
    "the forget classes": "the forget range",
    "the forget class": "the forget range",
    "the retain classes": "the retain range",
    "the other classes": "the rest of the target",
    "the class": "the range",
    "Classes share features": "Ranges share features",
}
PHRASES = re.compile("|".join(rf"\b{re.escape(phrase)}\b" for phrase in OF_RANGES))
TEXT_OF_PAGE = re.compile(r"(?s)<(script|style|pre)\b.*?</\1>|(?<=>)[^<]+(?=<)")


def in_its_words(text: str, record: Mapping[str, Any]) -> str:
    """A text about a record's audit; of a regressor with the words of ranges."""
    return of_ranges(text) if record.get("target") else text


def page_in_its_words(page: str, record: Mapping[str, Any]) -> str:
    """As `in_its_words`, for the text between the tags of an HTML page. Scripts, the embedded record too, styles and
    what is quoted in <pre> stay as they are.
    """
    if not record.get("target"):
        return page
    return TEXT_OF_PAGE.sub(lambda part: part[0] if part[1] else of_ranges(part[0]), page)


def of_ranges(text: str) -> str:
    return PHRASES.sub(lambda found: OF_RANGES[found[0]], text)
