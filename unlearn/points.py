"""Single images that are to be forgotten: a folder with the images themselves, and their labels where they are known.

A request for erasure names a person's records, so the points come with the request. They are real images, and every
run that reads them counts and lists them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synth.basics.errors import UsageError
from synth.basics.progress import Say, counted
from synth.basics.regular_files import read_regular
from synth.checkpoint.class_choice import as_options, choose_classes
from unlearn.data import LabelledImages, quiet
from unlearn.data_sets.reading.decode_images import decode_images
from unlearn.data_sets.reading.find_images import TABLES
from unlearn.data_sets.reading.found import LARGEST_FILE, Entry, Found, listed
from unlearn.data_sets.reading.from_folder import image_files, is_hidden
from unlearn.data_sets.reading.from_table import find_in_table
from unlearn.data_sets.reading.pixels import MODES
from unlearn.real_images import note_real_images, ranges

UNKNOWN = -1  # the label of a point whose class is not known
LONGEST_LIST = 20_000  # characters of row numbers that a checkpoint's card may hold


@dataclass(frozen=True, eq=False)  # a set of images is a key of the audit's caches
class Points:
    """P images uint8 (P, C, H, W), their labels int64 (P,), and their files' names below the folder `place`."""

    place: str
    names: tuple[str, ...]
    images: Tensor
    labels: Tensor  # UNKNOWN where the label is not known
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sha256(self) -> str:
        """The hash of all pixels, whatever the labels."""
        found = hashlib.sha256(str(tuple(self.images.shape)).encode())
        found.update(self.images.contiguous().numpy().data)
        return found.hexdigest()


def load_points(
    folder: Path, shape: tuple[int, int, int], class_names: Sequence[str], owner: str = "the teacher", say: Say = quiet
) -> Points:
    """The points in a folder: images in folders of classes, images that a CSV file labels, and images without a label.

    The images are read as those of `--data` are. Each call counts them (`unlearn.real_images`).

    Args:
        shape: channels, height and width that the images are converted to.
        class_names: the classes, in the order of the labels.
        owner: who has the classes, in an error.
        say: gets one line on what was read and changed.

    Raises:
        UsageError: the folder holds no image, a label is no class, or the network takes neither grey nor colour.
        UserError: an image or the CSV file cannot be read.
    """
    if shape[0] not in MODES:
        raise UsageError(f"{folder} has grey or colour images, but the checkpoint takes {shape[0]} channels")
    labelled, skipped = find_points(folder)
    known = {name: label_of(name, class_names, owner) for _, name in labelled if name}
    entries = [Entry(entry.where, entry.read, "") for entry, _ in labelled]
    found = Found(place=str(folder), entries=entries, class_names=[""], all_classes=True)
    images, _, notes = decode_images(found, shape, note_changes=True)
    labels = torch.tensor([known.get(name, UNKNOWN) for _, name in labelled])
    without = int((labels == UNKNOWN).sum())
    done = [f"{without:,} without a label"] if without else []
    done += [listed(notes)] if notes else []
    line = f"read {counted(len(labels), 'point')} from {folder}" + (f" ({', '.join(done)})" if done else "")
    say(line + (f"; skipped {listed(skipped)}" if skipped else ""))
    if len(labels) > 1 and len(labels.unique()) == 1 and not without:
        option = as_options("--forget", labels[:1].tolist(), class_names)
        say(f"all points have one label, {class_names[int(labels[0])]}: to forget that whole class, use {option}")
    note_real_images(len(labels))
    names = tuple(str(Path(entry.where).relative_to(folder)) for entry, _ in labelled)
    return Points(str(folder), names, images, labels, tuple(class_names))


def find_points(folder: Path) -> tuple[list[tuple[Entry, str]], Counter[str]]:
    """Each image of the folder with its class's name, empty where it is not known; and the other files by kind."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder of points {folder}: name a folder that holds their images")
    skipped: Counter[str] = Counter()
    classes = {path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)}
    found: dict[str, str] = {}
    for path in image_files(folder, skipped):
        inside = path.relative_to(folder).parts
        found[str(path)] = inside[0] if len(inside) > 1 and inside[0] in classes else ""
    tables = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in TABLES and not is_hidden(path.name)]
    if len(tables) > 1:
        raise UsageError(f"{folder} has several tables ({tables[0].name}, {tables[1].name}): keep the one with labels")
    for table in tables:
        del skipped[table.suffix.lower()]
        rows = find_in_table(table, None).entries  # points may be of any split
        outside = [row.where for row in rows if row.where not in found]
        if outside:
            raise UsageError(
                f"{table} names {outside[0]}, which is no image in {folder}: put it there, or drop the row"
            )
        # Folders that only hold the images of a table name no class.
        found = dict.fromkeys(found, "") | {row.where: row.class_name for row in rows}
    if not found:
        left_out = f" (left out: {listed(skipped)})" if skipped else ""
        raise UsageError(f"{folder} holds no image{left_out}: name a folder with the images of the points")
    entries = [
        (Entry(where, partial(read_regular, Path(where), LARGEST_FILE), name), name) for where, name in found.items()
    ]
    return entries, skipped


def label_of(name: str, class_names: Sequence[str], owner: str) -> int:
    """The class that a folder's or a row's text stands for. Raises UsageError if it stands for none or for several."""
    found = choose_classes([name], class_names, "label", owner)
    if len(found) != 1:
        raise UsageError(f"a point has the label '{name}', which is several classes: name one class")
    return found[0]


def rows_of_points(points: Points, data: LabelledImages) -> list[list[int]]:
    """The rows of the training images whose pixels are those of each point; none for a point that is not among them.

    Raises UsageError if the points have another shape.
    """
    if points.images.shape[1:] != data.images.shape[1:]:
        raise UsageError(
            f"the points in {points.place} have images {list(points.images.shape[1:])}, and the training images are "
            f"{list(data.images.shape[1:])}: name the same data, or give --image-size"
        )
    by_pixels: dict[bytes, list[int]] = {image.numpy().tobytes(): [] for image in points.images}
    for row, image in enumerate(data.images):
        if (key := image.numpy().tobytes()) in by_pixels:
            by_pixels[key].append(row)
    return [by_pixels[image.numpy().tobytes()] for image in points.images]


def leave_out(data: LabelledImages, points: Points, say: Say) -> tuple[LabelledImages, dict[str, Any]]:
    """The training images without the points, and what a checkpoint's card says of it. `say` gets one line."""
    found = rows_of_points(points, data)
    rows = sorted({row for each in found for row in each})
    keep = torch.ones(len(data), dtype=torch.bool)
    keep[rows] = False
    lacking = [name for name, each in zip(points.names, found, strict=True) if not each]
    line = f"leaves out {counted(len(rows), 'training image')} of {counted(len(points), 'point')}"
    if lacking:
        line += f"; {len(lacking):,} of the points are no training image, such as {lacking[0]}"
    say(line)
    return data.select(keep), facts("without", points, rows, len(points) - len(lacking))


def put_in(data: LabelledImages, points: Points, say: Say) -> tuple[LabelledImages, dict[str, Any]]:
    """The training images with the points as they are labelled: a training image gets its point's label, and a point
    that is no training image is added.

    Raises UsageError if a point has no label.
    """
    if (points.labels == UNKNOWN).any():
        name = points.names[int((points.labels == UNKNOWN).nonzero()[0])]
        raise UsageError(
            f"the point {name} has no label to train with: put it into a folder of its class, or into a CSV"
        )
    found = rows_of_points(points, data)
    labels = data.labels.clone()
    for each, label in zip(found, points.labels, strict=True):
        labels[each] = label
    new = [n for n, each in enumerate(found) if not each]
    rows = sorted({row for each in found for row in each})
    changed = int((labels != data.labels).sum())
    say(
        f"trains on {counted(len(points), 'point')}: {counted(changed, 'training image')} changed the label, and "
        f"{counted(len(new), 'image')} added"
    )
    whole = replace(
        data,
        images=torch.cat([data.images, points.images[new]]),
        labels=torch.cat([labels, points.labels[new]]),
    )
    return whole, facts("with", points, rows, len(points) - len(new))


def facts(how: str, points: Points, rows: list[int], found: int) -> dict[str, Any]:
    """What a checkpoint's card says of the points: whether it was trained with them or without, and which they are.

    The rows are those of the training images. They are left out where there are very many.
    """
    listed_rows = ranges(rows)
    noted = {"how": how, "sha256": points.sha256, "images": len(points), "found": found}
    return {**noted, "rows": listed_rows} if len(listed_rows) <= LONGEST_LIST else noted
