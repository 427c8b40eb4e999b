"""Which reader a path is for: folders of classes, a table, shards, or a data set of Hugging Face."""

from __future__ import annotations

from pathlib import Path

from synth.basics.errors import UsageError
from unlearn.data_sets.reading import from_arrow, from_folder, from_table, from_tar
from unlearn.data_sets.reading.found import SPLITS, Found
from unlearn.data_sets.reading.split_files import files_of_split

TABLES = (".csv", ".tsv")


def find_images(path: Path, split: str) -> Found:
    """The images of one split of a folder or a file.

    Raises:
        UsageError: the file is of no kind that is read.
        UserError: images, classes or files are missing or damaged.
    """
    ending = path.suffix.lower()
    if path.is_dir():
        return find_in(path, split)
    if ending in TABLES:
        return from_table.find_in_table(path, split)
    if ending == ".tar":
        return from_tar.find_in_tars(one_file(path, split), str(path))
    if ending == ".parquet":
        return from_arrow.find_in_parquet(one_file(path, split), str(path))
    if path.exists():
        raise UsageError(f"cannot read data from {path}: name a folder, or a file that ends in .csv, .tar or .parquet")
    return from_folder.find_in_folders(path, split)


def one_file(path: Path, split: str) -> list[Path]:
    """A file that a person named. Its images are test images, whatever it is called."""
    return [path] if split == "test" else files_of_split([path], path.parent, split)


def find_in(folder: Path, split: str) -> Found:
    """The images of one split of a folder."""
    if (folder / from_arrow.SPLITS_FILE).is_file() or (folder / from_arrow.STATE).is_file():
        return from_arrow.find_saved(folder, split)
    if any(from_folder.class_folders(folder, name) for name in SPLITS):
        return from_folder.find_in_folders(folder, split)
    for ending, find in ((".parquet", from_arrow.find_in_parquet), (".tar", from_tar.find_in_tars)):
        files = [p for depth in ("*", "*/*", "*/*/*") for p in folder.glob(f"{depth}{ending}") if p.is_file()]
        if files := [p for p in files if not any(from_folder.is_hidden(part) for part in p.relative_to(folder).parts)]:
            return find(files_of_split(files, folder, split), str(folder))
    return from_folder.find_in_folders(folder, split)
