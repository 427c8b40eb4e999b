"""Data sets of Hugging Face: a folder of `save_to_disk` (Arrow files), or Parquet files as in a repository.

pyarrow reads them, so `datasets` is not needed and no code of a data set runs. Only two columns are read: the image,
whose bytes lie in the file, and its class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synth.basics.errors import UserError, first_line
from synth.basics.foreign_json import parse_object
from synth.basics.regular_files import open_regular, read_regular
from unlearn.data_sets.reading.found import SPLITS, Entry, Found, names_in_order
from unlearn.data_sets.reading.from_table import CLASSES

INFO, STATE, SPLITS_FILE = "dataset_info.json", "state.json", "dataset_dict.json"
LARGEST_JSON, LARGEST_DATA = 2**26, 2**40  # bytes
IMAGES = ("image", "img", "picture", "photo", "png", "jpg")
CLASS_COLUMNS = (*CLASSES, "labels", "fine_label", "cls")


def find_saved(folder: Path, split: str) -> Found:
    """The images of one split of a folder that `save_to_disk` wrote.

    Raises:
        UserError: the split, a file, pyarrow or one of the columns is missing, or a file is damaged.
    """
    place = folder
    if (folder / SPLITS_FILE).is_file():
        there = {path.name.lower(): path for path in folder.iterdir() if (path / STATE).is_file()}
        found = [there[name] for name in SPLITS[split] if name in there]
        if not found:
            raise UserError(f"{folder} has no {split} images: its splits are {', '.join(sorted(there))}")
        place = found[0]
    elif split != "test":
        raise UserError(f"{folder} has no {split} images: save a DatasetDict with train and test")
    try:
        names = [Path(entry["filename"]).name for entry in read_json(place / STATE)["_data_files"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{place / STATE} names no files: save the data set again with save_to_disk") from error
    files = [place / name for name in names]
    return found_in(files, str(place), read_json(place / INFO).get("features") or {})


def find_in_parquet(files: Sequence[Path], place: str) -> Found:
    """The images in Parquet files. Raises UserError as `find_saved`."""
    return found_in(files, place, None)


def found_in(files: Sequence[Path], place: str, features: Mapping[str, Any] | None) -> Found:
    """The images in the files. `features` describe the columns; None looks for them in the first file."""
    entries: list[Entry] = []
    names: Sequence[str] | None = None
    for file in files:
        table = read_table(file)
        if features is None:
            features = features_in(table.schema.metadata or {})
        image, label = (
            column(table, IMAGES, features, "Image", file),
            column(table, CLASS_COLUMNS, features, "ClassLabel", file),
        )
        names = names_of(features.get(label))
        entries += entries_of(table, image, label, names, file)
    if not entries:
        raise UserError(f"{place} has no image: name another folder")
    return Found(
        place=place,
        entries=entries,
        class_names=names or names_in_order(entries),
        all_classes=names is not None,
    )


def read_table(file: Path) -> Any:
    """A pyarrow table of the file."""
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError:
        raise UserError(f"{file} needs pyarrow to be read: pip install pyarrow") from None
    try:
        with open_regular(file, LARGEST_DATA) as source:
            if file.suffix == ".parquet":
                table = parquet.ParquetFile(source).read()
            else:
                table = ipc.open_stream(source).read_all()
        table.validate(full=True)
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # ValueError: names that are not UTF-8
        raise UserError(f"{file} cannot be read ({first_line(error)}): get it again from its source") from error
    return table


def features_in(metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    """What `datasets` wrote about the columns of a Parquet file."""
    try:
        found = parse_object(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def column(table: Any, names: Sequence[str], features: Mapping[str, Any], kind: str, file: Path) -> str:
    """The first column that is declared to be of this kind, else the first that has one of the names."""
    declared = [n for n in table.column_names if isinstance(features.get(n), dict) and features[n].get("_type") == kind]
    for name in (*declared, *(name for name in names if name in table.column_names)):
        return name
    raise UserError(f"{file} has no column {' or '.join(names[:3])}: it has {', '.join(table.column_names)}")


def names_of(feature: Any) -> Sequence[str] | None:
    """The names of a column's classes. If two classes share a name, as in ImageNet, all are called by their numbers."""
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list):
        return None
    found = [str(name) for name in names]
    return found if len(set(found)) == len(found) else [str(number) for number in range(len(found))]


def entries_of(table: Any, image: str, label: str, names: Sequence[str] | None, file: Path) -> Iterator[Entry]:
    for row in range(table.num_rows):
        where = f"{file}, row {row}"
        value = table[label][row].as_py()
        if value is None:
            raise UserError(f"{where} has no {label}: complete it, or remove it")
        if names is not None and not (isinstance(value, int) and 0 <= value < len(names)):
            raise UserError(f"{where} has the {label} {value!r}, but there are {len(names)} classes: correct it")
        yield Entry(where, Cell(table[image], row), str(value) if names is None else names[value])


class Cell:
    """The bytes of one image in a column. Raises OSError if there are none in it."""

    def __init__(self, column: Any, row: int) -> None:
        self.column, self.row = column, row

    def __call__(self) -> bytes:
        value = self.column[self.row].as_py()
        value = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(value, bytes):
            raise OSError(0, "its bytes are not in the file (embed the images when you save the data set)")
        return value


def read_json(path: Path) -> dict[str, Any]:
    try:
        return parse_object(read_regular(path, LARGEST_JSON))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): save the data set again with save_to_disk") from error
