"""The data sets: each is one file, or one entry point of another package."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets

from synth.basics.errors import UsageError, UserError
from unlearn import data_sets
from unlearn.data import load_images

SHARED = Path(os.environ.get("UNLEARN_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
STRIPES = """
import torch
from unlearn.data_sets.reading.data_set import DataSet

def load(split, root, download):
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    images[2:, :, ::2] = 255
    return images, torch.tensor([0, 0, 1, 1]), ("plain", "striped")

def load_floats(split, root, download):
    return torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]), ("plain", "striped")

def load_unnamed(split, root, download):
    images, labels, _ = load(split, root, download)
    return images, labels, ("plain",)

def load_few(split, root, download):
    images, labels, names = load(split, root, download)
    return images, labels[:3], names

DATA_SET = DataSet(load=load, natural=True)
FLOATS, UNNAMED, FEW = (DataSet(load=f, natural=True) for f in (load_floats, load_unnamed, load_few))
"""


def test_the_names_are_known_without_torch() -> None:
    script = "import sys; from unlearn import data_sets; print(*data_sets.names()); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    names, has_torch = done.stdout.splitlines()
    ours = "cifar10 cifar100 digits fashion-mnist mnist rotated-digits rotated-mnist svhn"
    assert names.startswith(ours)
    assert has_torch == "False"


def test_every_data_set_says_whether_its_images_are_natural() -> None:
    records = {name: data_sets.find(name) for name in data_sets.own_names()}
    assert {name for name, record in records.items() if record and record.natural} == {"cifar10", "cifar100"}


def test_a_new_file_is_a_new_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "striped_squares.py").write_text(STRIPES)
    monkeypatch.setattr(data_sets, "__path__", [*data_sets.__path__, str(tmp_path)])
    assert "striped-squares" in data_sets.names()
    data = load_images("striped-squares", "train")
    assert (data.labels.tolist(), data.class_names, data.natural) == ([0, 0, 1, 1], ("plain", "striped"), True)


def install(folder: Path, **points: str) -> None:
    """Put a package `stripes` with these data sets into a folder, as pip would."""
    (folder / "stripes.py").write_text(STRIPES)
    about = folder / "stripes-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stripes\nVersion: 1.0\n")
    lines = [f"{name} = {place}\n" for name, place in points.items()]
    (about / "entry_points.txt").write_text(f"[{data_sets.ENTRY_POINTS}]\n{''.join(lines)}")


def test_another_package_adds_a_data_set_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, stripes="stripes:DATA_SET", digits="stripes:DATA_SET", gone="stripes:GONE")
    monkeypatch.syspath_prepend(tmp_path)
    assert data_sets.names()[-2:] == ["gone", "stripes"]
    assert load_images("stripes", "test").class_names == ("plain", "striped")
    assert len(load_images("digits", "test").class_names) == 10  # nobody replaces a data set of this package
    with pytest.raises(UserError, match=r"cannot load the data set 'gone' from stripes:GONE .*: repair or remove"):
        load_images("gone", "test")
    with pytest.raises(UsageError, match=r"choose cifar10, .*, gone, stripes, or the path"):
        load_images("imagenet", "test")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("FLOATS", r"gives torch.float32 images \[4, 1, 8, 8\]: its load function must give uint8 images"),
        ("FEW", r"gives torch.int64 labels \[3\] for 4 images: .* one int64 class number per image"),
        ("UNNAMED", "gives labels from 0 to 1 for 1 class names: .* must number the classes from 0 and name each"),
    ],
)
def test_a_data_set_that_breaks_its_format_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str, words: str
) -> None:
    install(tmp_path, odd=f"stripes:{record}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f"the data set 'odd' {words}"):
        load_images("odd", "train")


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason=f"no MNIST files in {SHARED} (set UNLEARN_TEST_DATA)")
def test_mnist_is_read_from_torchvision_layout(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (SHARED / "mnist").glob("*.gz"):
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    test = load_images("mnist", "test", tmp_path)
    assert test.images.shape == (10_000, 1, 28, 28)
    assert test.labels[:4].tolist() == [7, 2, 1, 0]
    assert test.class_names == tuple("0123456789")
    assert not test.natural


def test_cifar100_is_read_from_torchvision_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    folder = tmp_path / datasets.CIFAR100.base_folder
    folder.mkdir()
    contents = {
        "train": {"data": pixels.reshape(5, -1), "fine_labels": [0, 1, 2, 1, 0]},
        "test": {"data": pixels.reshape(5, -1), "fine_labels": [2, 2, 2, 1, 0]},
        "meta": {"fine_label_names": ["apple", "bear", "cup"]},
    }
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in contents}
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": sums["meta"]})
    train, test = load_images("cifar100", "train", tmp_path), load_images("cifar100", "test", tmp_path)
    assert torch.equal(train.images, torch.from_numpy(pixels))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2, 1, 0], [2, 2, 2, 1, 0])
    assert train.class_names == ("apple", "bear", "cup")
    assert train.natural  # so that training flips and shifts


def test_svhn_is_read_by_the_name_of_its_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    places = {}
    for split in ("train", "test"):
        file = tmp_path / f"{split}_32x32.mat"
        savemat(file, {"X": pixels, "y": np.array([[1], [10], [2], [10 if split == "test" else 9]])})
        places[split] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", places)
    train, test = load_images("svhn", "train", tmp_path), load_images("svhn", "test", tmp_path)
    assert torch.equal(train.images, torch.from_numpy(pixels).permute(3, 2, 0, 1))
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0, 2, 9], [1, 0, 2, 0])
    assert (train.class_names, train.natural) == (tuple("0123456789"), False)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist", "mnist", "svhn"])
def test_missing_files_are_named_with_the_cure(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=rf"cannot find .* in {tmp_path} .*: add --download, or name the folder"):
        load_images(name, "train", tmp_path)
