"""A decoded image as 8-bit pixels: by its depth, upright, on white where it is transparent, in grey or in colour."""

from __future__ import annotations

from collections import Counter

import numpy as np
from PIL import Image, ImageChops
from torchvision.transforms.functional import center_crop, resize

from synth.basics.image_files import UnreadableImageError

MODES = {1: "L", 3: "RGB"}  # of the channels that networks take
ORIENTATION = 0x0112  # a tag of EXIF
UPRIGHT = {  # what turns an image of each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def in_channels(image: Image.Image, channels: int, notes: Counter[str]) -> Image.Image:
    """The image in grey (1 channel) or RGB (3). `notes` counts what was done to images.

    - 16-bit pixels are scaled from 0 to 65,535, and floating-point ones from 0 to 1.
    - Transparent pixels are shown on white.
    - The image is turned as its EXIF data says.
    - A CMYK JPEG without Adobe's mark is not inverted; Pillow takes every one for inverted.

    Raises UnreadableImageError for pixels whose white is unknown.
    """
    kind = image.format
    if kind == "GIF":
        notes["first frame of GIF"] += 1
    turn = UPRIGHT.get(orientation(image))
    if turn is not None:
        notes["turned as EXIF says"] += 1
        image = image.transpose(turn)
    if image.mode.startswith(("I", "F")):
        notes["scaled to 8 bits"] += 1
        image = eight_bits(image, kind)
    if kind == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)
    if image.has_transparency_data:
        image = on_white(image, notes)
    if image.mode != MODES[channels]:
        image = image.convert(MODES[channels])
    return image


def orientation(image: Image.Image) -> int:
    """The tag of EXIF. An image whose EXIF data is damaged counts as upright."""
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # Pillow's reader of EXIF raises any error for damaged bytes
        found = None
    return found if isinstance(found, int) else 1


def eight_bits(image: Image.Image, kind: str | None) -> Image.Image:
    """16-bit and floating-point grey pixels as 8-bit ones."""
    pixels = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        white, pixels_are = 1.0, "floating-point pixels, which must be from 0 to 1"
    elif image.mode != "I" or kind in ("PNG", "PPM"):  # older Pillows give their 16 bits in 32
        white, pixels_are = 65535.0, "16-bit pixels, which must be from 0 to 65,535"
    else:
        raise UnreadableImageError("it has 32-bit pixels, whose white is unknown")
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= white):
        raise UnreadableImageError(f"it has {pixels_are}, but are {pixels.min():g} to {pixels.max():g}")
    return Image.fromarray((pixels * (255 / white)).round().astype(np.uint8))


def on_white(image: Image.Image, notes: Counter[str]) -> Image.Image:
    """The image in RGB before a white background."""
    layered = image.convert("RGBA")
    if layered.getchannel("A").getextrema()[0] == 255:
        return image if image.mode == "RGB" else layered.convert("RGB")
    notes["transparent, on white"] += 1
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB")


def sized(image: Image.Image, height: int, width: int) -> Image.Image:
    """The image, scaled until it covers height x width pixels, and cropped to its middle."""
    if image.size == (width, height):
        return image
    if height == width:
        return center_crop(resize(image, height), [height, width])
    scale = max(height / image.height, width / image.width)
    covering = [max(height, round(image.height * scale)), max(width, round(image.width * scale))]
    return center_crop(resize(image, covering), [height, width])
