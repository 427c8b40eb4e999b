"""From the files that a reader found to tensors."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from synth.basics.errors import UserError
from synth.basics.image_files import UnreadableImageError, decode_image
from synth.basics.out_of_memory import require_memory
from synth.basics.progress import counted
from unlearn.data_sets.reading.found import Found
from unlearn.data_sets.reading.pixels import in_channels, sized

NAMES = {"L": "grey", "RGB": "colour"}


def decode_images(
    found: Found, shape: tuple[int, int, int], note_changes: bool = False
) -> tuple[Tensor, Tensor, Counter[str]]:
    """Images uint8 (N, C, H, W), their classes int64 (N,), and what was done to images, with counts.

    Args:
        note_changes: count the images of another size or another number of channels, too.

    Raises UserError if an image cannot be read, or if all of them do not fit into memory.
    """
    notes: Counter[str] = Counter()
    refuse_too_many(len(found.entries), shape, found.place)
    images = torch.empty(len(found.entries), *shape, dtype=torch.uint8)
    for row, entry in enumerate(found.entries):
        try:
            opened = decode_image(entry.read())
            image = in_channels(opened, shape[0], notes)
            if note_changes:
                notes[f"resized to {shape[2]}x{shape[1]}"] += image.size != shape[:0:-1]
                notes[f"turned into {NAMES[image.mode]}"] += opened.mode in NAMES and opened.mode != image.mode
            image = sized(image, *shape[1:])
        except (UnreadableImageError, OSError, ValueError) as error:  # ValueError: colours that Pillow cannot convert
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise UserError(
                f"cannot read the image {entry.where}: {why}: save it again, or remove it from the folder"
            ) from error
        images[row] = pil_to_tensor(image)
    notes = +notes  # without zeros
    numbers = {name: number for number, name in enumerate(found.class_names)}
    return images, torch.tensor([numbers[entry.class_name] for entry in found.entries]), notes


def refuse_too_many(count: int, shape: tuple[int, int, int], place: str) -> None:
    """Raise UserError if the memory does not hold the images."""
    what = f"{counted(count, 'image')} in {place}"
    require_memory(count * math.prod(shape), what, "name data with fewer images", "cpu")
