"""Single points: reading a folder of them, and training with them or without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.file import read_card
from tests.unlearn.points import DIGITS, case
from unlearn.data import DataSource, LabelledImages
from unlearn.points import UNKNOWN, Points, leave_out, load_points, put_in
from unlearn.real_images import count_real_images
from unlearn.training import TrainSettings, train

SHAPE = (1, 28, 28)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight points in 28x28, four of them with a wrong label. Read only."""
    return case(tmp_path_factory.mktemp("points") / "drawn")


@pytest.fixture(scope="module")
def data() -> LabelledImages:
    return DataSource("digits").load("train")


def quietly(line: str) -> None:
    """For lines that a test does not look at."""


def read(folder: Path, lines: list[str] | None = None, shape: tuple[int, int, int] = SHAPE) -> Points:
    say = quietly if lines is None else lines.append
    return load_points(folder, shape, DIGITS, say=say)


def save(path: Path, colour: object = 0, size: tuple[int, int] = (28, 28), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]
    return path


def test_points_are_read_as_they_were_drawn_and_counted_as_real_images(drawn: Path, data: LabelledImages) -> None:
    with count_real_images() as real:
        points = read(drawn)
    assert (len(points), real.count) == (8, 8)
    rows = [next(n for n, image in enumerate(data.images) if torch.equal(image, point)) for point in points.images]
    wrong = [label != data.labels[row] for label, row in zip(points.labels, rows, strict=True)]
    assert wrong == ["wrong" in name for name in points.names] == [True] * 4 + [False] * 4


def test_labels_come_from_folders_of_classes_or_are_not_known(tmp_path: Path) -> None:
    for name in ("7/a.png", "3/deeper/b.png", "c.png"):
        save(tmp_path / name)
    save(tmp_path / ".hidden" / "d.png")
    lines: list[str] = []
    points = read(tmp_path, lines)
    assert dict(zip(points.names, points.labels.tolist(), strict=True)) == {
        "c.png": UNKNOWN,
        "3/deeper/b.png": 3,
        "7/a.png": 7,
    }
    assert lines == [f"read 3 points from {tmp_path} (1 without a label); skipped 1 hidden"]


def test_a_table_labels_some_points(tmp_path: Path) -> None:
    save(tmp_path / "a.png"), save(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text("path,label\na.png,5\n")
    assert read(tmp_path).labels.tolist() == [5, UNKNOWN]
    save(tmp_path / "points" / "b.png")
    (tmp_path / "points" / "labels.csv").write_text("path,label\n../a.png,5\n")
    with pytest.raises(UsageError, match=r"labels.csv names .*a.png, which is no image in"):
        read(tmp_path / "points")


def test_points_in_a_table_may_be_of_any_split(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("L", (28, 28), 9).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("path,label,split\na.png,5,train\nb.png,6,test\nc.png,7,train\n")
    assert load_points(tmp_path, (1, 28, 28), tuple("0123456789")).labels.tolist() == [5, 6, 7]


def test_another_size_or_number_of_channels_is_said(tmp_path: Path) -> None:
    save(tmp_path / "a.png", size=(40, 40)), save(tmp_path / "b.png", "red", mode="RGB")
    lines: list[str] = []
    assert read(tmp_path, lines).images.shape == (2, *SHAPE)
    assert "(2 without a label, 1 resized to 28x28, 1 turned into grey)" in lines[0]


def test_points_of_one_class_get_a_hint(tmp_path: Path) -> None:
    save(tmp_path / "3" / "a.png"), save(tmp_path / "3" / "b.png")
    lines: list[str] = []
    read(tmp_path, lines)
    assert lines[1] == "all points have one label, 3: to forget that whole class, use --forget 3"


def empty(folder: Path) -> None:
    (folder / "notes.txt").write_text("")


def outside(folder: Path) -> None:
    save(folder / "12" / "a.png")


def several(folder: Path) -> None:
    save(folder / "1-3" / "a.png")


def unreadable(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "a.png")


def two_tables(folder: Path) -> None:
    for name in ("a.png", "a.csv", "b.csv"):
        (folder / name).write_text("")


@pytest.mark.parametrize(
    ("make", "error", "line"),
    [
        (empty, UsageError, r"holds no image \(left out: 1 .txt\): name a folder with the images of the points"),
        (outside, UsageError, r"label 12 is out of range: the teacher has 10 classes \(0-9\)"),
        (several, UsageError, r"a point has the label '1-3', which is several classes: name one class"),
        (unreadable, UserError, r"cannot read the image .*a.png: it is damaged"),
        (pipe, UserError, r"cannot read the image .*a.png: it is a pipe"),
        (two_tables, UsageError, r"has several tables \(a.csv, b.csv\)"),
    ],
)
def test_a_folder_that_is_wrong_is_refused_in_one_line(tmp_path: Path, make: Any, error: Any, line: str) -> None:
    make(tmp_path)
    with pytest.raises(error, match=line):
        read(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder of points"):
        read(tmp_path / "none")


def test_training_images_equal_to_points_are_left_out_or_get_the_points_labels(
    drawn: Path, data: LabelledImages
) -> None:
    points, lines = read(drawn), []
    left, facts = leave_out(data, points, lines.append)
    assert (len(left), facts["found"], lines) == (len(data) - 8, 8, ["leaves out 8 training images of 8 points"])
    whole, known = put_in(data, points, lines.append)
    assert len(whole) == len(data)
    assert int((whole.labels != data.labels).sum()) == 4
    assert (known["rows"], known["sha256"]) == (facts["rows"], facts["sha256"])


def test_a_point_that_is_no_training_image_is_named_or_added(tmp_path: Path, data: LabelledImages) -> None:
    save(tmp_path / "4" / "white.png", 255)
    points, lines = read(tmp_path), []
    left, facts = leave_out(data, points, lines.append)
    assert (len(left), facts["found"]) == (len(data), 0)
    assert lines[0].endswith("1 of the points are no training image, such as 4/white.png")
    whole, _ = put_in(data, points, quietly)
    assert (len(whole), int(whole.labels[-1])) == (len(data) + 1, 4)


def test_points_without_a_label_or_of_another_shape_do_not_train(tmp_path: Path, data: LabelledImages) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"the point a.png has no label to train with"):
        put_in(data, read(tmp_path), quietly)
    with pytest.raises(UsageError, match=r"have images \[3, 32, 32\], and the training images are \[1, 28, 28\]"):
        leave_out(data, read(tmp_path, shape=(3, 32, 32)), quietly)


def test_the_card_of_a_reference_names_the_points_that_it_never_saw(drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "retrained.safetensors"
    settings = TrainSettings(epochs=1, batch_size=512)
    source = DataSource("digits")
    train("lenet5", 0.25, source, (), out, 0, "cpu", settings, quietly, without_points=drawn)
    training = read_card(out).training
    assert training["images"] == 1347 - 8
    assert training["points"] == {**training["points"], "how": "without", "sha256": read(drawn).sha256, "images": 8}
    with pytest.raises(UsageError, match="--with-points and --without-points exclude each other"):
        train("lenet5", 0.25, source, (), out, 0, "cpu", settings, quietly, with_points=drawn, without_points=drawn)
