"""Decoding image files that anyone may have made. No other module opens an image.

Pillow has some fifty formats, and one of them, PostScript, is a language that another program runs. So the caller lists
the formats, whatever the file's name says, and the size is checked before a pixel is decoded.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from synth.basics.errors import UserError
from synth.basics.regular_files import read_regular

PHOTOS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # what data sets of photos are kept in
LARGEST_FILE = 2**28  # bytes
LARGEST_IMAGE = 120_000_000  # pixels; half a gigabyte as Pillow keeps them
TOO_LARGE = f"it has more than {LARGEST_IMAGE:,} pixels"
LARGEST_RATIO = 100  # of the longer to the shorter side; resizing makes the shorter side as long as the user asks

# Pillow warns of large images. Ours are bounded here.
warnings.filterwarnings("ignore", module="PIL")


class UnreadableImageError(Exception):
    """Why a file is not an image that we read, in a few words."""


def read_image(path: Path, formats: tuple[str, ...] = PHOTOS) -> Image.Image:
    """The image in a file.

    Raises UnreadableImageError, and OSError as `open_regular` does.
    """
    return decode_image(read_regular(path, LARGEST_FILE), formats)


def decode_image(
    data: bytes, formats: tuple[str, ...] = PHOTOS, check: Callable[[Image.Image], None] | None = None
) -> Image.Image:
    """The image in the data, its first frame if there are several. `check` may refuse the image by a UserError before
    its pixels are decoded.

    Raises UnreadableImageError for data in another format, or damaged, or of an image that is too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            refuse_huge(*image.size)
            if check is not None:
                check(image)
            image.load()
            if image.mode in ("P", "PA") and image.palette is None:
                raise UnreadableImageError("its palette of colours is missing")
            return image
    except (UserError, UnreadableImageError):
        raise
    except Image.DecompressionBombError:  # Pillow's own bound, which is higher than ours
        raise UnreadableImageError(TOO_LARGE) from None
    except UnidentifiedImageError:
        raise UnreadableImageError(f"it is damaged, or none of {', '.join(formats)}") from None
    except Exception as error:  # Pillow's readers raise any error for damaged bytes
        raise UnreadableImageError(f"it is damaged ({str(error)[:80] or type(error).__name__})") from error


def refuse_huge(width: int, height: int) -> None:
    """Raise UnreadableImageError for an image that could not be decoded and resized in a gigabyte."""
    if width * height > LARGEST_IMAGE:
        raise UnreadableImageError(TOO_LARGE)
    if max(width, height) > LARGEST_RATIO * min(width, height):
        raise UnreadableImageError(
            f"it has {width:,} x {height:,} pixels: one side is more than {LARGEST_RATIO} times as long as the other"
        )
