"""Evaluation data from a table, from WebDataset shards and from data sets of Hugging Face."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from synth.basics.errors import UsageError, UserError
from tests.fuzzing import seeds
from tests.runs import digits_card
from unlearn.data import check_data, load_images
from unlearn.data_sets.reading.found import Entry, names_in_order

COLOURS = ("red", "blue", "lime")


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with im/red.png, im/blue.png and im/lime.png."""
    (tmp_path / "im").mkdir()
    for colour in COLOURS:
        (tmp_path / "im" / f"{colour}.png").write_bytes(png(colour))
    return tmp_path


def read(path: Path, split: str = "test") -> tuple[list[str], list[str]]:
    """The colour and the class of each image."""
    data = load_images(str(path), split, shape=(3, 8, 8))
    colours = [COLOURS[(0, 2, 1)[image[:, 0, 0].argmax().item()]] for image in data.images]
    return colours, [data.class_names[label] for label in data.labels.tolist()]


@pytest.mark.parametrize(
    "lines",
    [
        ["path,label", "im/red.png,cat", "im/blue.png,dog"],
        ["Filename;Class", "im/red.png;cat", "im/blue.png;dog"],
        ["id\timage_path\tcategory", "1\tim/red.png\tcat", "2\tim/blue.png\tdog"],
        ["\ufefffile , label_name", " im/red.png , cat ", "", "im/blue.png,dog"],
        ["path,label,split", "im/red.png,cat,test", "im/blue.png,dog,TEST", "im/lime.png,cat,train"],
        ["path,label,subset", "im/red.png,cat,val", "im/blue.png,dog,val", "im/lime.png,cat,train"],
    ],
)
def test_a_table_names_paths_and_classes(photos: Path, lines: Sequence[str]) -> None:
    table = photos / "labels.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    assert read(table) == (["red", "blue"], ["cat", "dog"])


@pytest.mark.parametrize(
    ("lines", "split", "words"),
    [
        (["a,b", "im/red.png,cat"], "test", "has no column path or file or filename or file_name"),
        (["path,label", "im/red.png"], "test", "row 1 of .* has no path or no label: complete it"),
        (["path,label", "im/red.png,"], "test", "row 1 of .* has no path or no label"),
        (
            ["path,label", "im/gone.png,cat"],
            "test",
            "names the image .*gone.png, which is not there: correct",
        ),
        (["path,label", f"{'a' * 300},cat"], "test", "names the image .*a, which is not there: correct"),
        (["path,label", "im,cat"], "test", "cannot read the image .*im: "),
        (["path,label", "im/red.png,cat"], "train", "has no train images: add a column 'split'"),
        (["path,label,split", "im/red.png,cat,train"], "test", "has no test images: add a column 'split'"),
        (["path,label"], "test", "has no test images"),
        ([""], "test", "is no CSV file in UTF-8 with a header"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(photos: Path, lines: Sequence[str], split: str, words: str) -> None:
    (photos / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=words):
        load_images(str(photos / "labels.csv"), split)


def test_numbers_in_a_table_are_classes_of_the_checkpoint_and_some_may_be_missing(photos: Path) -> None:
    (photos / "labels.csv").write_text("path,label\nim/red.png,2\nim/blue.png,0\n")
    data = load_images(str(photos / "labels.csv"), "test", shape=(3, 28, 28))
    card = digits_card(class_names=("cat", "dog", "bird"), input_shape=(3, 28, 28), mean=(0.3,) * 3, std=(0.3,) * 3)
    said: list[str] = []
    fitted = check_data(card, data, Path("t"), "labels.csv", say=said.append)
    assert (fitted.labels.tolist(), fitted.class_names) == ([2, 0], card.class_names)
    assert said == [
        "labels.csv: its numbers are the checkpoint's classes 0 'cat' to 2 'bird'",
        "labels.csv: no image of class 1, 'dog'",
    ]


def add(tar: tarfile.TarFile, name: str, content: bytes, **facts: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for fact, value in facts.items():
        setattr(member, fact, value)
    tar.addfile(member, io.BytesIO(content))


def shard(path: Path, samples: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT, **facts: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in samples.items():
            add(tar, name, content, **facts)
    return path


SAMPLES = {"a.png": png("red"), "a.cls": b"0", "b.png": png("blue"), "b.cls": b"11", "a.npy": b"x", "._a.png": b""}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("folder", ["", "deep/" * 40])
def test_shards_are_read_in_every_form_of_tar(tmp_path: Path, form: int, folder: str) -> None:
    if folder and form == tarfile.USTAR_FORMAT:
        folder = "deep/" * 30
    facts = {"mtime": 0.5} if form == tarfile.PAX_FORMAT else {}  # webdataset writes such a header for each member
    path = shard(tmp_path / "any.tar", {f"{folder}{name}": data for name, data in SAMPLES.items()}, form, **facts)
    assert read(path) == (["red", "blue"], ["0", "11"])


@pytest.mark.parametrize(
    "label", [{"cls": b"cat\n"}, {"txt": b"cat"}, {"json": b'{"label": "cat", "x": 1}'}, {"json": b'{"cls": "cat"}'}]
)
def test_a_sample_has_its_class_in_one_of_several_members(tmp_path: Path, label: Mapping[str, bytes]) -> None:
    samples = {"a.png": png("red"), **{f"a.{kind}": content for kind, content in label.items()}}
    assert read(shard(tmp_path / "any.tar", samples)) == (["red"], ["cat"])


def test_the_shards_of_a_split_are_known_by_their_names(tmp_path: Path) -> None:
    for name, colour in (("x-train-00.tar", "blue"), ("x-val-00.tar", "red"), ("x-val-01.tar", "lime")):
        shard(tmp_path / name, {"a.png": png(colour), "a.cls": b"cat"})
    assert read(tmp_path) == (["red", "lime"], ["cat", "cat"])
    assert read(tmp_path, "train") == (["blue"], ["cat"])
    assert read(tmp_path / "x-train-00.tar") == (["blue"], ["cat"])  # a file that a person names
    with pytest.raises(UserError, match="has no train images: give the files a name with train or training in it"):
        load_images(str(tmp_path / "x-val-00.tar"), "train")


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ({"a.png": png("red")}, "sample a has no class: add a member KEY.cls"),
        ({"a.png": png("red"), "a.json": b"[" * 10**5}, "sample a has no class"),
        ({"a.png": png("red"), "a.cls": b"\xff"}, "sample a has no class"),
        ({"a.png": b"%!PS", "a.cls": b"0"}, "cannot read the image .*sample a: it is damaged, or none of PNG"),
        ({"a.cls": b"0"}, "has no sample with an image and a class"),
        ({"a.png": png("red"), "a.cls": b"0", "a.logits.npy": b""}, "has images that synth made: name real images"),
    ],
)
def test_a_shard_that_cannot_be_used_is_named(tmp_path: Path, samples: Mapping[str, bytes], words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_images(str(shard(tmp_path / "any.tar", samples)), "test")


def test_a_damaged_shard_is_one_line_and_only_plain_files_are_read(tmp_path: Path) -> None:
    path = shard(tmp_path / "any.tar", SAMPLES)
    with tarfile.open(path, "a") as tar:
        add(tar, "c.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "c.cls", b"2")
    assert read(path) == (["red", "blue"], ["0", "11"])
    data = path.read_bytes()
    for broken, words in ((data[:700], "is cut short"), (b"\1" * 2000, "is not a readable tar")):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=words):
            load_images(str(path), "test")


def rows(classes: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"image": {"bytes": png(c), "path": None}, "label": v} for c, v in zip(COLOURS, classes, strict=False)]


FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def parquet(path: Path, classes: Sequence[Any], features: Mapping[str, Any] | None = None) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as writer

    table = pyarrow.Table.from_pylist(rows(classes))
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.write_table(table, path)
    return path


def test_parquet_files_of_a_repository_are_read_by_their_features(tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [1, 0], FEATURES)
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [1], FEATURES)
    assert read(tmp_path) == (["red", "blue"], ["dog", "cat"])
    assert read(tmp_path, "train") == (["red"], ["dog"])
    assert read(parquet(tmp_path / "plain.parquet", ["x", "y"])) == (["red", "blue"], ["x", "y"])
    twins = {**FEATURES, "label": {"names": ["crane", "crane"], "_type": "ClassLabel"}}
    assert read(parquet(tmp_path / "twins.parquet", [1, 0], twins))[1] == ["1", "0"]


def test_a_folder_of_save_to_disk_is_read_without_its_library(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    from datasets import ClassLabel, Dataset, DatasetDict, Features
    from datasets import Image as ImageFeature
    from datasets.utils import logging

    logging.disable_progress_bar()
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["cat", "dog"])})
    images = [Image.new("RGB", (8, 8), colour) for colour in COLOURS]
    data = Dataset.from_dict({"image": images, "label": [0, 1, 1]}, features=features)
    DatasetDict({"train": data.select([2]), "validation": data.select([1, 0])}).save_to_disk(tmp_path / "both")
    assert read(tmp_path / "both") == (["blue", "red"], ["dog", "cat"])
    assert read(tmp_path / "both", "train") == (["lime"], ["dog"])
    data.save_to_disk(tmp_path / "one")
    assert read(tmp_path / "one")[1] == ["cat", "dog", "dog"]
    with pytest.raises(UserError, match="has no train images: save a DatasetDict"):
        load_images(str(tmp_path / "one"), "train")


@pytest.mark.parametrize(
    ("classes", "features", "words"),
    [
        ([2], FEATURES, r"row 0 has the label 2, but there are 2 classes"),
        ([None], None, "row 0 has no label: complete it"),
    ],
)
def test_a_row_without_a_class_is_named(
    tmp_path: Path, classes: Sequence[Any], features: Mapping[str, Any] | None, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        load_images(str(parquet(tmp_path / "a.parquet", classes, features)), "test")


def test_files_that_are_no_data_are_one_line(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"a\.parquet cannot be read .*: get it again"):
        load_images(str(tmp_path / "a.parquet"), "test")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(UsageError, match=r"cannot read data from .*a\.zip: name a folder, or a file that ends in"):
        load_images(str(tmp_path / "a.zip"), "test")
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(UserError, match="it is a pipe, not a file"):
        load_images(str(tmp_path / "a.csv"), "test")


def test_a_class_with_thousands_of_digits_is_a_name() -> None:
    entries = [Entry(where="a", read=lambda: b"", class_name=name) for name in ("10", "9", "1" * 5000)]
    assert names_in_order(entries) == ["10", "1" * 5000, "9"]
    assert names_in_order(entries[:2]) == ["9", "10"]


def test_a_parquet_file_whose_names_are_no_text_is_one_line(tmp_path: Path) -> None:
    data = seeds.parquet(seeds.pictures())
    for name in (b"label", b"image", b"bytes"):
        (tmp_path / "test.parquet").write_bytes(data.replace(name, b"\xff" * len(name)))
        with pytest.raises(UserError, match=r"test\.parquet"):
            load_images(str(tmp_path / "test.parquet"), "test")
