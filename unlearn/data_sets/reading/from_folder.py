"""Images in folders: train/CLASS/*.png and test/CLASS/*.png, or CLASS/train/*.png and CLASS/test/*.png."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from synth.basics.errors import UserError
from synth.basics.regular_files import read_regular
from unlearn.data_sets.reading.found import LARGEST_FILE, SPLITS, Entry, Found

# Endings of image files. Pillow looks at the content, not at the ending.
ENDINGS = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"}
ENDINGS |= {".ppm", ".pgm", ".pbm", ".pnm"}
SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini", "@eadir"}  # lower-case names that systems leave in folders


def find_in_folders(folder: Path, split: str) -> Found:
    """The images of one split of a folder. A class whose images are gone has an empty folder.

    Raises:
        UserError: a split has no image, or only one split has a folder for some class.
    """
    classes = class_folders(folder, split)
    skipped: Counter[str] = Counter()
    entries = [
        Entry(str(path), partial(read_regular, path, LARGEST_FILE), name)
        for name, place in classes.items()
        for path in image_files(place, skipped)
    ]
    if not entries:
        left_out = f" (left out: {', '.join(sorted(skipped))})" if skipped else ""
        if not folder.exists():
            raise UserError(f"there is no folder {folder}: name one that has train/CLASS/ and test/CLASS/")
        above = folder.resolve()
        is_split = any(above.name.lower() in names for names in SPLITS.values())
        cure = f"name the folder above it, {above.parent}," if is_split else "name a folder"
        raise UserError(
            f"{folder / split} has no folders of classes with images{left_out}: {cure} that has train/CLASS/ and "
            "test/CLASS/"
        )
    check_same_classes(folder, split, classes)
    place = next(iter(classes.values())).parent
    return Found(
        place=str(place if place.parent.name not in classes else folder),
        entries=entries,
        class_names=list(classes),
        all_classes=True,
        skipped=skipped,
    )


def class_folders(folder: Path, split: str) -> dict[str, Path]:
    """The folder of each class in a split, by the class's name in the order of the alphabet; none without the split."""
    inside = subfolders(folder)
    for name in SPLITS[split]:
        if classes := {path.name: path for path in subfolders(named(inside, name))}:
            return classes
    if any(named(inside, name) for names in SPLITS.values() for name in names):
        return {}
    if len(inside) == 1:  # an unpacked archive often has one folder around its content
        return class_folders(inside[0], split)
    by_class = {path.name: [there for n in SPLITS[split] if (there := named(subfolders(path), n))] for path in inside}
    return {name: places[0] for name, places in by_class.items() if places}


def named(folders: list[Path], name: str) -> Path | None:
    """The folder of this name; capital letters do not matter."""
    return next((path for path in folders if path.name.lower() == name), None)


def subfolders(folder: Path | None) -> list[Path]:
    """The folders inside, without hidden ones, in the order of the alphabet."""
    if folder is None or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is a system's or a program's own, such as .git, __MACOSX, ._photo.jpg or Thumbs.db."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def image_files(folder: Path, skipped: Counter[str]) -> list[Path]:
    """The image files in a folder and in the folders below it, in the order of torchvision's ImageFolder.

    `skipped` counts the other files by their kind.
    """
    found: list[tuple[str, list[str]]] = []
    seen: set[str] = set()
    for place, inside, files in os.walk(folder, followlinks=True):
        visible = [name for name in inside if not is_hidden(name)]
        skipped["hidden"] += len(inside) - len(visible)
        inside[:] = [name for name in visible if os.path.realpath(os.path.join(place, name)) not in seen]
        seen.update(os.path.realpath(os.path.join(place, name)) for name in inside)
        found.append((place, sorted(files)))
    paths = [Path(place, name) for place, files in sorted(found) for name in files]
    for path in paths:
        skipped[kind_of(path)] += 1
    del skipped["an image"]
    for kind in [kind for kind, count in skipped.items() if not count]:
        del skipped[kind]
    return [path for path in paths if kind_of(path) == "an image"]


def kind_of(path: Path) -> str:
    if is_hidden(path.name):
        return "hidden"
    ending = path.suffix.lower()
    return "an image" if ending in ENDINGS else ending or "without an ending"


def check_same_classes(folder: Path, split: str, classes: Mapping[str, Path]) -> None:
    """Raise UserError if only one of both splits has a folder for some class."""
    others = class_folders(folder, "test" if split == "train" else "train")
    in_one_only = set(classes) ^ set(others) if others else set()
    if in_one_only:
        name = min(in_one_only)
        here, there = (next(iter(found.values())).parent for found in (classes, others))
        has, lacks = (here, there) if name in classes else (there, here)
        raise UserError(
            f"{has} has a folder '{name}' and {lacks} has none: give both a folder for each class, for one without "
            "images an empty one"
        )
