"""The first training images of a named data set, as shards that `--data` reads: a smaller case of the same kind."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import torch
from PIL import Image
from reproduce_jobs import Data

from synth.basics.disk import write_file
from unlearn.data import DataSource, LabelledImages

SPLITS = ("train", "test")


def subset(data: Data, images: int, folder: Path) -> Data:
    """`first_images` of the training set, and all test images. The folder is written once."""
    for split in SPLITS:
        place = folder / f"{split}.tar"
        if not place.exists():
            whole = DataSource(data.name, data.root, data.download).load(split)
            chosen = first_images(whole, images) if split == "train" else whole
            folder.mkdir(parents=True, exist_ok=True)
            write_file(place, tar_of(chosen))
    return Data(str(folder), data.root, False)


def first_images(whole: LabelledImages, count: int) -> LabelledImages:
    """The first images; of a set that comes class by class, as a folder does, the first images of each class."""
    labels = whole.labels
    if not (labels.diff() >= 0).all():
        return whole.select(slice(count))
    of_class = torch.bincount(labels, minlength=len(whole.class_names))
    place_in_class = torch.arange(len(labels)) - (of_class.cumsum(0) - of_class)[labels]
    return whole.select(place_in_class.argsort(stable=True)[:count])


def tar_of(images: LabelledImages) -> bytes:
    """One sample per image, KEY.png and KEY.cls, without a time, so that the bytes are the same again."""
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as tar:
        for number, (image, label) in enumerate(zip(images.images, images.labels.tolist(), strict=True)):
            png = io.BytesIO()
            Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(png, "PNG")
            for ending, content in (("png", png.getvalue()), ("cls", images.class_names[label].encode())):
                member = tarfile.TarInfo(f"{number:06d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return found.getvalue()
