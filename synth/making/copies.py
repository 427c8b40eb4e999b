"""Recognition under copies: whether a network names mirrored, shifted, cropped, halved and grey copies of an image.

Noise that only its own teacher recognises loses its class under such changes; an image of an object keeps it. So this
judges synthesised images without any data. The teacher's confidence does not: the synthesis maximised it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.basics.out_of_memory import by_rows
from synth.checkpoint.classifier import Classifier, predict, to_unit

JUDGED = 50  # images that a network judges at once
SHIFT = 16  # an image is shifted by its side divided by this
KEPT = 7 / 8  # of each side stays in a crop
EVERY = 20  # one image in 20 is judged while its shard is made; it takes less than the labels do
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in a grey image (ITU-R BT.601)


def mirrored(x_unit: Tensor) -> Tensor:
    """Left and right exchanged."""
    return x_unit.flip(3)


def shifted(x_unit: Tensor) -> Tensor:
    """Moved to the lower right by a sixteenth of the sides. The border is repeated."""
    down, right = (max(1, side // SHIFT) for side in x_unit.shape[-2:])
    return F.pad(x_unit, (right, 0, down, 0), mode="replicate")[..., :-down, :-right]


def cropped(x_unit: Tensor) -> Tensor:
    """The middle seven eighths of the sides, resized back."""
    height, width = x_unit.shape[-2:]
    rows, columns = (max(1, round(KEPT * side)) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return resized(x_unit[..., top : top + rows, left : left + columns], (height, width))


def halved(x_unit: Tensor) -> Tensor:
    """At half the resolution, resized back."""
    height, width = x_unit.shape[-2:]
    return resized(resized(x_unit, (max(1, height // 2), max(1, width // 2))), (height, width))


def grey(x_unit: Tensor) -> Tensor:
    """The luminance in each of three channels. Images with another number of channels stay as they are."""
    return luminance(x_unit).expand_as(x_unit) if x_unit.shape[1] == len(LUMA) else x_unit


COPIES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mirrored": mirrored,
    "shifted": shifted,
    "cropped": cropped,
    "halved": halved,
    "grey": grey,
}
# Images of one channel are mostly digits, letters and drawings: mirrored, they mean something else, and they are grey.
OF_ONE_CHANNEL = ("shifted", "cropped", "halved")


def counted(channels: int) -> tuple[str, ...]:
    """The copies that count for images with this number of channels. The others only describe."""
    return OF_ONE_CHANNEL if channels == 1 else tuple(COPIES)


def luminance(x_unit: Tensor) -> Tensor:
    """Grey images (N, 1, H, W) of colour images (N, 3, H, W)."""
    weights = x_unit.new_tensor(LUMA).view(1, -1, 1, 1)
    return (x_unit * weights).sum(1, keepdim=True)


def resized(x_unit: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (N, C, H, W) of another height and width: bilinear, averaged over the pixels that become one."""
    if tuple(x_unit.shape[-2:]) == size:
        return x_unit
    return F.interpolate(x_unit, size=size, mode="bilinear", align_corners=False, antialias=True)


def recognised(
    model: Classifier, images: Tensor, labels: Tensor, names: tuple[str, ...] | None = None
) -> dict[str, Tensor]:
    """Whether the network calls each copy of each image by the image's class, (N,) bool, by the copy's name.

    Args:
        model: a network that takes images of this shape.
        images: uint8 or floats in [0, 1], (N, C, H, W).
        labels: (N,).
        names: the copies; those that count, unless given.
    """
    chosen = counted(images.shape[1]) if names is None else names
    return {name: called(model, images, COPIES[name]) == labels for name in chosen}


def called(model: Classifier, images: Tensor, copy: Callable[[Tensor], Tensor]) -> Tensor:
    """The class that the network gives to a copy of each image, (N,). Copies are computed on the CPU everywhere."""
    return by_rows(lambda rows: predict(model, copy(to_unit(rows))).argmax(1), JUDGED, images)


def share_recognised(model: Classifier, images: Tensor, labels: Tensor) -> Tensor:
    """For each image, the share of its copies that the network calls by the image's class, (N,), float64."""
    return torch.stack(list(recognised(model, images, labels).values())).double().mean(0)


def recognised_in_some(model: Classifier, images: Tensor, labels: Tensor, seed: int) -> Tensor:
    """`recognised` for one image in `EVERY`, as bool (copies, images / EVERY). The seed chooses the images.

    They are drawn from a random source of their own, so that judging changes nothing else in a shard.
    """
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(images), generator=rng)[: -(-len(images) // EVERY)]
    return torch.stack(list(recognised(model, images[rows], labels[rows]).values()))
