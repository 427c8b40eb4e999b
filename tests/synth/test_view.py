"""`synth status` and `synth preview`."""

import os
import re
import shutil
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synth.basics.errors import UsageError, UserError
from synth.basics.grids import row_height
from synth.checkpoint.classifier import Classifier
from synth.executors.executor import in_process
from synth.making.copies import recognised
from synth.run import view
from synth.run.publish import open_run, publish
from synth.run.view import GAP, LABEL_WIDTH, describe, draw_grid, images_per_class, row_of
from synth.shards.index import INDEX, PART, Index, read_index, shard_name
from synth.shards.plan import Plan
from synth.shards.store import Folder, open_store
from tests.runs import card_for, make_run, recipe_for
from tests.storage import FaultyProxy

SIDE = 56  # of an image of 28 pixels in a grid


@pytest.fixture
def half(tiny_run: Path, tmp_path: Path) -> Folder:
    """The tiny run as it was when shards 0 and 2 of 4 were published, the second one ten seconds after the first."""
    store = Folder(tmp_path / "half")
    store.create()
    index = read_index(Folder(tiny_run))
    for number, second in ((0, 1_000_000), (2, 1_000_010)):
        shutil.copy(tiny_run / shard_name(number), store.path)
        os.utime(store.path / shard_name(number), (second, second))
    entries = {number: index.entries[number] for number in (0, 2)}
    store.write(PART, Index(index.card, entries, complete=False).to_bytes())
    return store


def test_a_complete_run_is_described_as_complete(tiny_run: Path) -> None:
    text = describe(Folder(tiny_run))
    assert f"{tiny_run}: complete" in text
    assert "4 of 4 shards, 100 of 100" in text
    assert "missing" not in text
    assert re.search(r"recognised \d+% of 24 changed copies of the images, by the teacher", text)  # 2 images per shard
    assert read_index(Folder(tiny_run)).card.teacher_sha256[:12] in text


def test_the_description_of_a_growing_run_names_missing_shards_and_the_time_left(half: Folder) -> None:
    text = describe(half)
    assert "not complete" in text
    assert "2 of 4 shards, 50 of 100" in text
    assert "missing    shards 1, 3" in text
    assert "2.5 images/s" in text  # 25 in 10 s
    assert "20 s left at that rate" in text


def test_a_published_shard_that_is_gone_is_named(half: Folder) -> None:
    half.remove("shard-000000.tar")
    text = describe(half)
    assert "not complete" in text
    assert "gone       shard-000000.tar: " in text


def test_a_run_without_shards_has_no_rate_yet(half: Folder) -> None:
    card = read_index(half).card
    half.write(PART, Index(card, {}, complete=False).to_bytes())
    assert "unknown until two shards are published" in describe(half)


@pytest.mark.parametrize("per_class", [10, 40])
def test_a_run_in_a_bucket_is_described_by_as_many_requests_whatever_its_length(
    tiny_teacher: Classifier, s3_port: int, monkeypatch: pytest.MonkeyPatch, per_class: int
) -> None:
    name = uuid.uuid4()
    recipe, plan = recipe_for(tiny_teacher), Plan(classes=(0, 1), per_class=per_class, shard_size=2)
    store = open_store(f"s3://runs/{name}")
    index = open_run(store, card_for(recipe, plan), resume=False, overwrite=False)
    index = publish(store, index, recipe, in_process, lambda samples: None)
    time.sleep(1.1)  # the times of S3 are whole seconds
    store.write(shard_name(0), store.read(shard_name(0), 2**20))
    store.remove(shard_name(1))
    store.write(
        PART, replace(index, entries={n: e for n, e in index.entries.items() if n != 2}, complete=False).to_bytes()
    )
    store.remove(INDEX)
    with FaultyProxy(s3_port, lambda call: "") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        text = describe(open_store(f"s3://runs/{name}"))
        requests = next(proxy.calls) - 1
    assert "gone       shard-000001.tar: " in text
    assert "missing    shards 2\n" in text
    assert " images/s, " in text
    assert requests <= 6  # the index, and one listing of the shards


def test_a_huge_plan_is_described_without_listing_it(tmp_path: Path, tiny_teacher: object) -> None:
    plan = Plan(classes=tuple(range(10)), per_class=10**8, shard_size=1)
    card = card_for(recipe_for(tiny_teacher), plan)  # type: ignore[arg-type]
    Folder(tmp_path).write(PART, Index(card, {}, complete=False).to_bytes())
    text = describe(Folder(tmp_path))
    assert "0 of 1,000,000,000 " in text
    assert "shards 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...\n" in text


def test_a_grid_has_one_row_per_class_with_its_first_images(tiny_run: Path, tmp_path: Path) -> None:
    store = Folder(tiny_run)
    index = read_index(store)
    draw_grid(store, 3, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        grid = np.asarray(image)
    assert grid.shape == (10 * (SIDE + GAP), LABEL_WIDTH + 3 * (SIDE + GAP), 3)
    rows = images_per_class(store, index, 3)
    assert list(rows) == list(range(10))
    for row, images in enumerate(rows.values()):
        assert len(images) == 3
        top, left = row * (SIDE + GAP), LABEL_WIDTH + SIDE + GAP
        np.testing.assert_array_equal(grid[top : top + SIDE : 2, left : left + SIDE : 2, 0], images[1][0])
        assert grid[top : top + SIDE, :LABEL_WIDTH].min() < 128  # a label is written


def test_a_grid_with_the_teacher_shows_below_each_image_what_the_teacher_recognises(
    tiny_run: Path, tiny_teacher: Classifier, tmp_path: Path
) -> None:
    store = Folder(tiny_run)
    index = read_index(store)
    draw_grid(store, 3, tmp_path / "plain.png")
    draw_grid(store, 3, tmp_path / "judged.png", teacher=tiny_teacher)
    plain, judged = (np.asarray(Image.open(tmp_path / name)) for name in ("plain.png", "judged.png"))
    pitch = row_height(SIDE, words=True)
    assert judged.shape == (10 * pitch, *plain.shape[1:])
    for label, images in images_per_class(store, index, 3).items():
        votes = [recognised(tiny_teacher, torch.from_numpy(image[None]), torch.tensor([label])) for image in images]
        row = row_of(label, images, index, tiny_teacher)
        assert list(row.below) == [f"{sum(int(v) for v in each.values())} of 3" for each in votes]
        assert judged[label * pitch + SIDE : (label + 1) * pitch, LABEL_WIDTH:].min() < 255  # words are written
    assert [text.words for text in row_of(0, [np.zeros((1, 28, 28), np.uint8)], index, None).texts] == ["0"]
    with pytest.raises(UsageError, match="was made from another teacher: name the run's own teacher with --teacher"):
        draw_grid(store, 3, tmp_path / "grid.png", teacher=Classifier.untrained(tiny_teacher.card, 9))


def test_a_grid_of_a_growing_run_shows_the_published_images(half: Folder, tmp_path: Path) -> None:
    draw_grid(half, 100, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.width == LABEL_WIDTH + 100 * (SIDE + GAP)


def test_a_grid_has_no_row_for_a_class_without_images(tiny_teacher: Classifier, tmp_path: Path) -> None:
    plan = Plan(classes=(3, 1, 7, 0), per_class=1, shard_size=2)
    store, index = make_run(tmp_path / "run", recipe_for(tiny_teacher), plan)
    part = Index(index.card, {0: index.entries[0]}, complete=False)
    assert list(images_per_class(store, part, 3)) == [3, 1]


def test_a_grid_too_large_is_refused_with_the_columns_that_fit(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, column = 10 * row_height(SIDE, words=True), SIDE + GAP
    monkeypatch.setattr(view, "LARGEST_GRID", row * (LABEL_WIDTH + 4 * column))
    with pytest.raises(UserError, match=r"5 images for each of 10 classes has more than .*: give --columns 4$"):
        draw_grid(Folder(tiny_run), 5, tmp_path / "grid.png")
    draw_grid(Folder(tiny_run), 4, tmp_path / "grid.png")
    monkeypatch.setattr(view, "LARGEST_GRID", row * LABEL_WIDTH)
    with pytest.raises(UserError, match=r"view fewer classes \(--classes\)"):
        draw_grid(Folder(tiny_run), 1, tmp_path / "grid.png")


def test_a_grid_that_cannot_be_drawn_gives_the_cause(tiny_run: Path, half: Folder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: it is a file, not a folder: choose another folder"):
        draw_grid(Folder(tiny_run), 2, tmp_path / "file" / "grid.png")
    half.write(PART, Index(read_index(half).card, {}, complete=False).to_bytes())
    with pytest.raises(UserError, match="has no published shard and no picture of the first one yet"):
        draw_grid(half, 2, tmp_path / "grid.png")
    with pytest.raises(UserError, match="there is no run in"):
        draw_grid(Folder(tmp_path / "none"), 2, tmp_path / "grid.png")
    assert not (half.path / INDEX).exists()
