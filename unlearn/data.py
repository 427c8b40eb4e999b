"""Real images with labels, for training teachers and for evaluation. The unlearning methods never come here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.card import ModelCard
from unlearn import data_sets
from unlearn.data_sets.reading.data_set import Loaded
from unlearn.data_sets.reading.from_folder import load_folder
from unlearn.real_images import note_real_images


@dataclass(frozen=True, eq=False)  # a set of images is a key of the audit's caches
class LabelledImages:
    """Images uint8 (N, C, S, S) and their classes int64 (N,). `natural`: mirrored images are plausible images."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    natural: bool

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, keep: Tensor) -> LabelledImages:
        """The images that a mask or a list of rows names."""
        return replace(self, images=self.images[keep], labels=self.labels[keep])

    def without(self, classes: tuple[int, ...]) -> LabelledImages:
        """The images of all other classes."""
        return self.select(~torch.isin(self.labels, torch.tensor(classes, dtype=torch.long)))


@dataclass(frozen=True)
class DataSource:
    """A data set as the command line names it; see `load_images`."""

    name: str
    root: Path | None
    download: bool
    image_size: int

    def load(self, split: str) -> LabelledImages:
        return load_images(self.name, split, self.root, self.download, self.image_size)


def load_images(
    name: str, split: str, root: Path | None = None, download: bool = False, image_size: int = 32
) -> LabelledImages:
    """The `train` or `test` images of a data set. Each call counts its images (`unlearn.real_images`).

    Args:
        name: one of `unlearn.data_sets.names()`, or the path of a folder with train/CLASS/*.png and test/CLASS/*.png
            (or JPEG, WebP, BMP, TIFF, GIF, PPM). A class whose images are gone has an empty folder.
        root: the folder that holds data sets, in torchvision's layout; `data` by default.
        download: fetch the files of the data set if they are missing.
        image_size: side in pixels that a folder's images are resized to; a named data set has a size of its own.

    Raises:
        UsageError: there is no such data set.
        UserError: its files are missing or damaged.
    """
    data_set = data_sets.find(name)
    if data_set is not None:
        images, labels, class_names = checked(name, data_set.load(split, root or Path("data"), download))
        natural = data_set.natural
    elif "/" in name or Path(name).is_dir():
        images, labels, class_names = load_folder(Path(name), split, image_size)
        natural = True
    else:
        raise UsageError(
            f"unknown data '{name}': choose {', '.join(data_sets.names())}, "
            "or the path of a folder with train/ and test/"
        )
    note_real_images(len(labels))
    return LabelledImages(images, labels, tuple(class_names), natural)


def checked(name: str, loaded: Loaded) -> Loaded:
    """What a data set loaded. Raises UserError if it is not as `Loaded` says: other packages may have written it."""
    images, labels, class_names = loaded
    squares = images.dim() == 4 and images.shape[1] in (1, 3) and images.shape[2] == images.shape[3]
    if images.dtype != torch.uint8 or not squares:
        raise UserError(
            f"the data set '{name}' gives {images.dtype} images {list(images.shape)}: "
            "its load function must give uint8 images (N, 1 or 3 channels, side, side)"
        )
    if labels.dtype != torch.long or labels.shape != images.shape[:1]:
        raise UserError(
            f"the data set '{name}' gives {labels.dtype} labels {list(labels.shape)} for {len(images)} images: "
            "its load function must give one int64 class number per image"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
        raise UserError(
            f"the data set '{name}' gives labels from {int(labels.min())} to {int(labels.max())} "
            f"for {len(class_names)} class names: its load function must number the classes from 0 and name each"
        )
    return loaded


def check_data(
    card: ModelCard, data: LabelledImages, checkpoint: Path, data_name: str, gone: tuple[int, ...] = ()
) -> LabelledImages:
    """The images, with labels that number the classes in the checkpoint's order.

    Classes are matched by name. If the names on one side are only numbers, they are positions in the other side's
    order.

    Args:
        gone: classes that the data may lack, as after an erasure. The data then lacks their names too.

    Raises:
        UsageError: the checkpoint takes images of another shape, or has other classes.
    """
    ours, theirs = card.class_names, data.class_names
    same_shape = card.input_shape == tuple(data.images.shape[1:])
    needed = {name for number, name in enumerate(ours) if number not in gone}
    if same_shape and needed <= set(theirs) < set(ours):
        return reordered(data, ours, card.class_names)
    if not same_shape or len(ours) != len(theirs):
        cure = "name the data that the checkpoint was made for"
        if same_shape and len(theirs) < len(ours):
            cure += ", with an empty folder for each class whose images are gone"
        raise UsageError(
            f"{checkpoint} takes images {list(card.input_shape)} of {len(ours)} classes, but "
            f"{data_name} has images {list(data.images.shape[1:])} of {len(theirs)} classes: {cure}"
        )
    if ours == theirs or (numbered(ours) and not numbered(theirs)):
        return data
    if numbered(theirs) and not numbered(ours):
        ours = tuple(map(str, range(len(ours))))
    if set(ours) != set(theirs):
        unknown = min(set(theirs) - set(ours))
        raise UsageError(
            f"{checkpoint} has no class '{unknown}', which {data_name} has: name the data that the checkpoint "
            f"was made for, or import it again with --classes {shortened(theirs)} if its outputs are in that order"
        )
    return reordered(data, ours, card.class_names)


def reordered(data: LabelledImages, order: tuple[str, ...], class_names: tuple[str, ...]) -> LabelledImages:
    """The images with new labels: the position of each class's name in `order`."""
    positions = torch.tensor([order.index(name) for name in data.class_names])
    return replace(data, labels=positions[data.labels], class_names=class_names)


def numbered(class_names: tuple[str, ...]) -> bool:
    """Whether all classes have numbers for names."""
    return all(name.isdigit() for name in class_names)


def shortened(class_names: tuple[str, ...], limit: int = 10) -> str:
    return ",".join(class_names[:limit]) + (",..." if len(class_names) > limit else "")


def normalisation(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images (N, C, S, S), for pixels in [0, 1], to four digits."""
    unit = images.double() / 255
    mean, std = unit.mean((0, 2, 3)), unit.std((0, 2, 3)).clamp_min(1e-3)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())
