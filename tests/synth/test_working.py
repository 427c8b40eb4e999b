"""A run in work: what it shows, what others see of it in its store, and how large it will be."""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from synth.basics import progress
from synth.basics.byte_sizes import format_bytes, parse_bytes
from synth.basics.errors import UserError
from synth.basics.ticks import listening, tick
from synth.basics.way_on import WayOn
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import save_checkpoint
from synth.commands.calling import parameters
from synth.commands.main import generate as command
from synth.commands.main import request_of_run
from synth.executors.executor import in_process
from synth.making import pulse
from synth.making.make import Recipe, make_shard, synthesis_share
from synth.making.pulse import LARGEST_PICTURE, Beat, Pulse, picture_of
from synth.run import sizes
from synth.run.generate import generate_run
from synth.run.lock import LOCK, Lock
from synth.run.publish import open_run, publish
from synth.run.request import Request
from synth.run.sizes import expected_bytes, images_per_shard
from synth.run.view import describe, draw_grid
from synth.run.working import PICTURE, Working, work_in, working
from synth.shards.index import INDEX, PART, Index, find_index, read_index
from synth.shards.plan import Plan
from synth.shards.samples import Layout
from synth.shards.store import Folder
from tests.runs import card_for, digests, recipe_for

PLAN = Plan(classes=(0, 1), per_class=4, shard_size=4)
WAY_ON = WayOn(command="synth generate")
DIGITS = Layout((1, 28, 28), 10, views=9)
PHOTOS = Layout((3, 224, 224), 1000, views=9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds; a test moves it on."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def recipe(tiny_teacher: Classifier) -> Recipe:
    return recipe_for(tiny_teacher)


@pytest.fixture
def begun(tmp_path: Path, recipe: Recipe) -> tuple[Folder, Index, Lock]:
    """A run without shards, and its lock as its driver holds it."""
    store = Folder(tmp_path / "run")
    index = open_run(store, card_for(recipe, PLAN), resume=False, overwrite=False)
    return store, index, Lock(store, WAY_ON)


def quiet(line: str) -> None:
    """Gets lines that a test does not look at."""


def test_a_worker_says_within_its_shard_how_far_it_is(recipe: Recipe) -> None:
    beats: list[Beat] = []
    job = dataclasses.replace(PLAN, views=3).job(1)
    with listening(Pulse(job, recipe, beats.append, seconds=0)):
        make_shard(job, recipe)
    shares = [beat.share for beat in beats]
    images = synthesis_share(recipe.settings, 3)
    assert shares == pytest.approx([0, images / 2, images, 1])  # the beginning, both steps, and the answers
    assert {(beat.number, beat.picture) for beat in beats} == {(1, None)}


def test_beats_are_rare_and_never_fall_back(recipe: Recipe, clock: list[float]) -> None:
    beats: list[Beat] = []
    with listening(Pulse(PLAN.job(1), recipe, beats.append, seconds=5, now=lambda: clock[0])):
        for done in (1, 2, 3, 1, 2, 3):
            clock[0] += 2
            tick(done, 4)
    assert [beat.share for beat in beats] == [0, 0.25, 0.75]


def test_a_driver_hears_every_shard_of_this_process(recipe: Recipe) -> None:
    heard: list[Beat] = []
    assert len(list(in_process(PLAN.jobs(), recipe, heard=heard.extend))) == 2
    assert {beat.number for beat in heard} == {0, 1}


def test_a_shard_is_listed_while_the_next_one_is_made(
    begun: tuple[Folder, Index, Lock], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, index, _ = begun
    monkeypatch.setattr("synth.executors.executor.BEAT_SECONDS", 0.0)
    reported: list[int] = []
    seen: list[tuple[set[int], list[int]]] = []  # the index and the reports, at each beat of the second shard

    def heard(beats: list[Beat]) -> None:
        if beats[0].number != 1:
            return
        until = time.monotonic() + 20
        while not seen and not (store.path / "shard-000000.tar").exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)  # the upload's thread ends
        found = find_index(store)
        assert found is not None
        seen.append((set(found.entries), list(reported)))

    publish(store, index, recipe, in_process, lambda entry: reported.append(entry.number), heard=heard)
    assert seen[-1] == ({0}, [0])
    assert reported == [0, 1]


def test_listening_changes_no_byte_of_a_shard(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "FIRST_PICTURE", 0.0)
    monkeypatch.setattr(pulse, "PICTURE_SECONDS", 0.0)
    beats: list[Beat] = []
    with listening(Pulse(PLAN.job(0), recipe, beats.append, seconds=0)):
        heard = make_shard(PLAN.job(0), recipe)
    assert sum(beat.picture is not None for beat in beats) == recipe.settings.steps
    assert heard.data == make_shard(PLAN.job(0), recipe).data


@pytest.mark.parametrize(("side", "classes"), [(28, 10), (224, 1000)])
def test_a_picture_of_noise_is_small_and_can_be_drawn(side: int, classes: int) -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 3, side, side), generator=rng, dtype=torch.uint8)
    picture = picture_of(images, torch.arange(64) % classes, [f"class {c}" for c in range(classes)])
    assert len(picture) <= LARGEST_PICTURE
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "JPEG"
        assert image.height >= 10 * 28  # a row per class


def test_progress_counts_shards_in_work_and_the_lock_says_it(
    begun: tuple[Folder, Index, Lock], clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    store, index, lock = begun
    with working(store, index, lock, quiet) as run:
        run.heard([Beat(0, 0.0), Beat(1, 0.0)])
        clock[0] += 30
        run.heard([Beat(0, 0.25), Beat(1, 0.0)])
        clock[0] += 8
        run.heard([Beat(0, 0.5), Beat(1, 0.25)])
        assert "3 of 8 images (38%), 15.0/min, 20 s left" in capsys.readouterr().err
        store.write(LOCK, lock.to_bytes())  # as the lock's next beat does
        work = work_in(store)
    assert work is not None
    assert (work.images, work.shards) == (3, 2)
    assert work.per_second == pytest.approx(2 / 8)
    assert "in work    2 shards; 3 of 8 images (38%), 15.0/min, 20 s left (" in describe(store)


def test_a_beat_of_a_published_shard_does_not_count_twice(begun: tuple[Folder, Index, Lock], recipe: Recipe) -> None:
    store, index, lock = begun
    run = Working(store, index, lock, quiet)
    publish(store, index, recipe, in_process, run.enter)
    run.heard([Beat(1, 0.9)])
    assert run.progress is not None
    assert run.progress.reached == PLAN.images


def test_the_shards_of_a_resumed_run_do_not_count_towards_the_time_left(
    begun: tuple[Folder, Index, Lock], recipe: Recipe, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    store, index, lock = begun
    whole = publish(store, index, recipe, in_process, lambda entry: None)
    half = dataclasses.replace(whole, entries={0: whole.entries[0]}, complete=False)
    with working(store, half, lock, quiet) as run:
        run.heard([Beat(1, 0.0)])
        clock[0] += 10
        run.heard([Beat(1, 0.25)])
        clock[0] += 10
        run.heard([Beat(1, 0.5)])
    assert "6 of 8 images (75%), 6.0/min, 20 s left" in capsys.readouterr().err


def test_a_lock_with_impossible_work_and_one_of_a_dead_process_say_nothing(begun: tuple[Folder, Index, Lock]) -> None:
    store, _, lock = begun
    for work in ({"images": -1, "per_second": 1, "shards": 1}, {"images": 1e300}, {"images": "9"}, {}):
        lock.work = work  # type: ignore[assignment]
        store.write(LOCK, lock.to_bytes())
        assert work_in(store) is None
    lock.work = {"images": 1, "per_second": 1, "shards": 1}
    lock.facts["begun"] = "long ago"
    store.write(LOCK, lock.to_bytes())
    assert work_in(store) is None
    assert "in work" not in describe(store)


def test_a_preview_shows_the_first_shard_in_work_until_it_is_published(
    begun: tuple[Folder, Index, Lock], recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, index, lock = begun
    out = tmp_path / "grid.png"
    with pytest.raises(UserError, match="no published shard and no picture of the first one yet"):
        draw_grid(store, 3, out)
    monkeypatch.setattr(pulse, "FIRST_PICTURE", 0.0)
    monkeypatch.setattr(pulse, "PICTURE_SECONDS", 0.0)
    monkeypatch.setattr("synth.executors.executor.BEAT_SECONDS", 0.0)
    said: list[str] = []
    with working(store, index, lock, quiet) as run:

        def heard(beats: list[Beat]) -> None:
            run.heard(beats)
            if (store.path / PICTURE).exists() and not said:
                said.append(draw_grid(store, 3, out))

        execute = lambda jobs, recipe: in_process(jobs, recipe, heard=heard)  # noqa: E731
        publish(store, index, recipe, execute, run.enter)
        assert not (store.path / PICTURE).exists()
    assert said == [f"wrote {out}: no shard is published yet, so it shows images of the first one in work"]
    with Image.open(out) as image:
        assert image.format == "PNG"
    assert draw_grid(store, 3, out) == f"wrote {out}"


def test_a_damaged_picture_is_refused_and_a_killed_run_leaves_none_to_the_next(
    begun: tuple[Folder, Index, Lock], tmp_path: Path
) -> None:
    store, index, _ = begun
    store.write(PICTURE, b"<svg>")
    with pytest.raises(UserError, match=r"preview\.tmp cannot be drawn"):
        draw_grid(store, 3, tmp_path / "grid.png")
    assert PICTURE not in store.names()
    open_run(store, index.card, resume=True, overwrite=False)
    assert not (store.path / PICTURE).exists()


# How large a run is


def test_a_run_of_digits_keeps_its_thousand_images_per_shard() -> None:
    for per_class in (1, 100, 1000, 6000, 60_000):
        for batch in (200, 250, 300, 500, 1000):
            assert images_per_shard(DIGITS, 10 * per_class, batch) == 1000


@pytest.mark.parametrize("batch", [1, 32, 64, 100, 250])
@pytest.mark.parametrize("images", [100, 2_000, 50_000, 6_000_000])
@pytest.mark.parametrize("layout", [PHOTOS, Layout((3, 384, 384), 5, 0, "jpg"), Layout((3, 64, 64), 200, 4)])
def test_a_shard_holds_whole_batches_in_at_most_a_hundred_megabytes_and_a_run_many_shards(
    layout: Layout, images: int, batch: int
) -> None:
    size = images_per_shard(layout, images, batch)
    assert size % batch == 0 or images < batch
    assert size * expected_bytes(layout) <= 100_000_000 or size == batch
    smallest = 10_000_000 // expected_bytes(layout)
    assert images // size >= 200 or size <= max(smallest, batch)


@pytest.mark.parametrize("layout", [DIGITS, PHOTOS])
@pytest.mark.parametrize("asked", [1_000_000, 10_000_000, 300_000_000])
def test_a_size_in_bytes_is_kept(layout: Layout, asked: int) -> None:
    image, found = expected_bytes(layout), images_per_shard(layout, 10**6, 32, asked)
    assert asked - 32 * image < found * image <= asked
    assert found % 32 == 0 or found < 32


def test_a_size_in_bytes_beyond_all_bounds_gives_a_shard_that_can_be_read() -> None:
    assert images_per_shard(PHOTOS, 10**6, 32, 1) == 1
    assert images_per_shard(PHOTOS, 10**6, 32, 10**15) == sizes.most_images(PHOTOS) // 32 * 32


def test_the_expected_size_is_that_of_a_real_run(tiny_run: Path) -> None:
    index = read_index(Folder(tiny_run))
    size = sum(entry.size for entry in index.entries.values())
    assert sizes.whole_size(index.card.layout, index.samples) == pytest.approx(size, rel=0.15)
    assert sizes.whole_size(index.card.layout, 2 * index.samples, index.entries.values()) == 2 * size


@pytest.mark.parametrize(
    ("text", "count"), [("100MB", 10**8), ("1.5 gb", 1_500_000_000), ("64kB", 64_000), ("1GiB", 2**30), ("7B", 7)]
)
def test_bytes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "0MB", "1e9B", "10", "1 XB", "9" * 5000 + "MB"])
def test_other_text_is_no_number_of_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of bytes: write it like 100MB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1234, "1.2 kB"), (3_082_240, "3.1 MB"), (34e6, "34 MB"), (8.1e12, "8.1 TB")],
)
def test_bytes_are_written_for_people(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.fixture
def request_for(tiny_teacher: Classifier, tmp_path: Path) -> Callable[..., Request]:
    """A request for a run of two classes in this process."""
    save_checkpoint(tiny_teacher, tmp_path / "teacher.safetensors")

    def build(**options: object) -> Request:
        usual = {"teacher": tmp_path / "teacher.safetensors", "per_class": 4, "classes": "0,1", "steps": 2}
        usual |= {"out": str(tmp_path / "out"), "address": "none", "views": 0}
        return request_of_run(**parameters(command, {**usual, **options}))

    return build


def test_a_run_says_its_size_before_it_starts(request_for: Callable[..., Request], tmp_path: Path) -> None:
    said: list[str] = []
    generate_run(request_for(), said.append)
    summary = r"8 images of 2 classes in 1 shard, about \d+ kB, on this process \(cpu\): classes 0, 1"
    assert re.fullmatch(summary, said[0])
    assert said[-2] == "the time is known after the first steps"
    assert set(digests(tmp_path / "out")) == {"index.json", "shard-000000.tar"}


@pytest.mark.parametrize("option", [{}, {"overwrite": True}])
def test_a_disk_without_the_space_refuses_the_run_and_keeps_what_is_there(
    request_for: Callable[..., Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: dict[str, bool]
) -> None:
    if option:
        generate_run(request_for(), quiet)
    before = digests(tmp_path / "out") if option else None
    free = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda path: free)
    with pytest.raises(UserError, match=r"will take about .* MB and the disk has 1\.0 MB free: free some"):
        generate_run(request_for(per_class=1000, **option), quiet)
    assert (digests(tmp_path / "out") if option else None) == before
    assert (tmp_path / "out").exists() == bool(option)


def test_a_resumed_run_needs_space_only_for_the_rest_and_keeps_its_shard_size(
    request_for: Callable[..., Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, usage = Folder(tmp_path / "out"), shutil.disk_usage(tmp_path)
    whole = generate_run(request_for(shard_size=4, per_class=8), quiet)
    half = dataclasses.replace(whole, entries={0: whole.entries[0]}, complete=False)
    store.write(PART, half.to_bytes())
    store.remove(INDEX)
    left = 3 * whole.entries[0].size
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda path: usage._replace(free=left - 1))
    with pytest.raises(UserError, match="the disk has"):
        generate_run(request_for(per_class=8, resume=True), quiet)
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda path: usage._replace(free=left))
    said: list[str] = []
    assert generate_run(request_for(per_class=8, resume=True), said.append) == whole
    assert "1 of 4 shards are published already; the time for the rest is known after the first steps" in said


def test_a_disk_that_turns_out_too_small_is_told_once(
    begun: tuple[Folder, Index, Lock], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, index, lock = begun
    free = shutil.disk_usage(store.path)._replace(free=10)
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda path: free)
    said: list[str] = []
    with working(store, index, lock, said.append) as run:
        publish(store, index, recipe, in_process, run.enter)
    assert len(said) == 1
    assert "warning: the rest of the run will take about" in said[0]


def test_a_training_of_the_generator_shows_its_time_left(
    begun: tuple[Folder, Index, Lock], clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    store, index, lock = begun
    with working(store, index, lock, quiet) as run:
        for share in (0.0, 0.25, 0.5):
            clock[0] += 10
            run.heard([Beat(-1, share)])
    assert capsys.readouterr().err.splitlines()[-1] == "training the generator: 50%, 20 s left"
