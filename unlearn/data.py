"""Real images with labels, for training teachers and for evaluation. The unlearning methods never come here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.card import ModelCard
from synth.shards.read import UNREADABLE

TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}
NAMES = ("digits", *TORCHVISION)


@dataclass(frozen=True, eq=False)  # a set of images is a key of the audit's caches
class LabelledImages:
    """Images uint8 (N, C, S, S) and their classes (N,). `natural`: mirrored images are plausible images."""

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
        return self.select(~torch.isin(self.labels, torch.tensor(classes, dtype=torch.long)))


def load_images(
    name: str, split: str, root: Path | None = None, download: bool = False, image_size: int = 32
) -> LabelledImages:
    """The `train` or `test` images of a data set.

    Args:
        name: digits (shipped inside scikit-learn), mnist, fashion-mnist, cifar10 (torchvision's layout below `root`),
            or the path of a folder with train/CLASS/*.png and test/CLASS/*.png (any format that Pillow reads). A class whose
            images are gone has an empty folder.
        image_size: side in pixels that a folder's images are resized to.

    Raises:
        UserError: the data is not where it should be; UsageError: there is no such data set.
    """
    if name == "digits":
        return load_digits(split)
    if name in TORCHVISION:
        return load_torchvision(name, split, root, download)
    if "/" in name or Path(name).is_dir():
        return load_folder(Path(name), split, image_size)
    raise UsageError(f"unknown data '{name}': choose {', '.join(NAMES)}, or the path of a folder with train/ and test/")


def check_data(
    card: ModelCard, data: LabelledImages, checkpoint: Path, data_name: str, gone: tuple[int, ...] = ()
) -> LabelledImages:
    """The images, with their labels in the order of the checkpoint's classes.

    Where the data's names are only numbers, they are the checkpoint's; where the checkpoint's are, they number the data's.

    Args:
        gone: classes that the data need not know, as after an erasure. They are missed by their names.

    Raises:
        UsageError: the checkpoint is for images of another shape, or for other classes.
    """
    ours, theirs = card.class_names, data.class_names
    fits = card.input_shape == tuple(data.images.shape[1:])
    if fits and set(ours) - {ours[c] for c in gone if c < len(ours)} <= set(theirs) < set(ours):
        return reordered(data, ours, card.class_names)
    if not fits or len(ours) != len(theirs):
        cure = ", with an empty folder for each class whose images are gone" if fits and len(theirs) < len(ours) else ""
        raise UsageError(
            f"{checkpoint} takes images {list(card.input_shape)} of {len(ours)} classes, but "
            f"{data_name} has {list(data.images.shape[1:])} of {len(theirs)}: name the data it was made for{cure}"
        )
    if ours == theirs or (numbered(ours) and not numbered(theirs)):
        return data
    if numbered(theirs) and not numbered(ours):
        ours = tuple(map(str, range(len(ours))))
    if set(ours) != set(theirs):
        lacking = min(set(theirs) - set(ours))
        raise UsageError(
            f"{checkpoint} has no class '{lacking}' of {data_name}: name the data it was made for, or import it again "
            f"with --classes {shortened(theirs)} if its outputs are in that order"
        )
    return reordered(data, ours, card.class_names)


def reordered(data: LabelledImages, order: tuple[str, ...], class_names: tuple[str, ...]) -> LabelledImages:
    """The images with their labels by their classes' places in `order`."""
    places = torch.tensor([order.index(name) for name in data.class_names])
    return replace(data, labels=places[data.labels], class_names=class_names)


def numbered(class_names: tuple[str, ...]) -> bool:
    return all(name.isdigit() for name in class_names)


def shortened(class_names: tuple[str, ...], limit: int = 10) -> str:
    return ",".join(class_names[:limit]) + (",..." if len(class_names) > limit else "")


def load_digits(split: str) -> LabelledImages:
    """1,797 real digits of 8x8 pixels, enlarged to 28x28; a quarter of each class, always the same, is the test set."""
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    pixels, targets = sklearn_digits(return_X_y=True)
    train, test = train_test_split(range(len(targets)), test_size=0.25, random_state=0, stratify=targets)
    rows = train if split == "train" else test
    small = torch.tensor(pixels[rows], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    large = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    images = (large * 255).round().to(torch.uint8)
    return LabelledImages(images, torch.tensor(targets[rows]), tuple(map(str, range(10))), natural=False)


def load_torchvision(name: str, split: str, root: Path | None, download: bool) -> LabelledImages:
    from torchvision import datasets

    place = root or Path("data")
    try:
        dataset = getattr(datasets, TORCHVISION[name])(str(place), train=split == "train", download=download)
    except Exception as error:  # torchvision raises anything from RuntimeError to URLError here
        cure = "check the network" if download else "add --download, or name the folder that has it with --data-root"
        raise UserError(f"cannot find {name} below {place} ({first_line(error)}): {cure}") from error
    images = torch.as_tensor(dataset.data)
    images = images[:, None] if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
    names = tuple(str(i) for i in range(10)) if name == "mnist" else tuple(dataset.classes)
    return LabelledImages(images, torch.as_tensor(dataset.targets), names, natural=name == "cifar10")


def load_folder(folder: Path, split: str, image_size: int) -> LabelledImages:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

    try:
        dataset = ImageFolder(str(folder / split), allow_empty=True)
        if not len(dataset):
            raise FileNotFoundError
    except FileNotFoundError as error:
        raise UserError(
            f"{folder / split} has no folders of classes with images: name a folder that has train/CLASS/ and test/CLASS/"
        ) from error
    other = folder / ("test" if split == "train" else "train")
    if other.is_dir() and (odd := set(dataset.classes) ^ {entry.name for entry in other.iterdir() if entry.is_dir()}):
        raise UserError(
            f"only one of {folder / split} and {other} has a folder {min(odd)}: give both a folder for each class"
        )
    images = torch.empty(len(dataset), 3, image_size, image_size, dtype=torch.uint8)
    for row, (path, _) in enumerate(dataset.samples):
        try:
            image = dataset.loader(path)
        except UNREADABLE as error:
            raise UserError(
                f"cannot read the image {path}: {first_line(error)}: save it anew, or take it out of the folder"
            ) from error
        if image.size != (image_size, image_size):
            image = center_crop(resize(image, image_size), [image_size, image_size])
        images[row] = pil_to_tensor(image)
    return LabelledImages(images, torch.tensor(dataset.targets), tuple(dataset.classes), natural=True)


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def normalisation(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images, in [0, 1], to four digits."""
    unit = images.double() / 255
    mean, std = unit.mean((0, 2, 3)), unit.std((0, 2, 3)).clamp_min(1e-3)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())


@dataclass(frozen=True)
class DataSource:
    """A data set as the command line names it."""

    name: str
    root: Path | None
    download: bool
    image_size: int

    def load(self, split: str) -> LabelledImages:
        return load_images(self.name, split, self.root, self.download, self.image_size)
