"""Images in folders: train/CLASS/*.png and test/CLASS/*.png, in PNG, JPEG, WebP, BMP, TIFF, GIF or PPM."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from synth.basics.errors import UserError
from synth.basics.image_files import UnreadableImageError, read_image
from unlearn.data_sets.reading.data_set import Loaded


def load_folder(folder: Path, split: str, image_size: int) -> Loaded:
    """The images of one split in RGB, resized and cropped to squares of `image_size` pixels per side.

    A class whose images are gone has an empty folder. Raises UserError if a split has no image, if only one split has a
    folder for some class, or if an image cannot be read.
    """
    try:
        found = ImageFolder(str(folder / split), allow_empty=True)
        if not len(found):
            raise FileNotFoundError
    except FileNotFoundError as error:
        raise UserError(
            f"{folder / split} has no folders of classes with images: "
            "name a folder that has train/CLASS/ and test/CLASS/"
        ) from error
    check_same_classes(folder, split, set(found.classes))
    images = torch.empty(len(found), 3, image_size, image_size, dtype=torch.uint8)
    for row, (path, _) in enumerate(found.samples):
        try:
            image = read_image(Path(path)).convert("RGB")
        except (UnreadableImageError, OSError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(
                f"cannot read the image {path}: {why}: save it again, or remove it from the folder"
            ) from error
        if image.size != (image_size, image_size):
            image = center_crop(resize(image, image_size), [image_size, image_size])
        images[row] = pil_to_tensor(image)
    return images, torch.tensor(found.targets), found.classes


def check_same_classes(folder: Path, split: str, classes: set[str]) -> None:
    """Raise UserError if only one of both splits has a folder for some class."""
    other = folder / ("test" if split == "train" else "train")
    if not other.is_dir():
        return
    in_one_only = classes ^ {entry.name for entry in other.iterdir() if entry.is_dir()}
    if in_one_only:
        raise UserError(
            f"only one of {folder / split} and {other} has a folder '{min(in_one_only)}': "
            "give both a folder for each class"
        )
