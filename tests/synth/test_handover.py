"""Workers that write their shards into the store themselves. Here the worker is this process."""

from __future__ import annotations

import dataclasses
import errno
import os
import pickle
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.executors.executor import Made
from synth.executors.handover import Staged, StagingArea, hindrance_to_staging, make_and_hand_over, stage, staging_area
from synth.making.make import JobResult, Recipe, make_shard
from synth.run.lock import LostLockError
from synth.run.publish import open_run, publish, read_index, verify
from synth.shards.index import INDEX, PART, GateCounts, shard_name
from synth.shards.plan import Plan, ShardJob
from synth.shards.store import Folder
from tests.runs import card_for, digests, in_worker, make_run, recipe_for

PLAN = Plan(classes=(1, 2), per_class=4, shard_size=2, seed=5)  # 4 shards
JOB = PLAN.job(0)


@pytest.fixture(scope="module")
def recipe(tiny_teacher: Classifier) -> Recipe:
    return recipe_for(tiny_teacher)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> dict[str, str]:
    """The files of a run that the head wrote."""
    path = tmp_path_factory.mktemp("reference") / "run"
    make_run(path, recipe, PLAN)
    return digests(path)


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    store = Folder(tmp_path / "run")
    store.create()
    return store


@pytest.fixture
def area(store: Folder) -> Iterator[StagingArea]:
    with staging_area(store, "start again", required=False, check=lambda: None) as area:
        yield area


def hand_over(area: StagingArea | None, job: ShardJob = JOB) -> bytes | Staged:
    return make_and_hand_over(job, lambda: JobResult(b"a shard"), area).data


def test_workers_write_the_bytes_that_the_head_would_write(
    tmp_path: Path, recipe: Recipe, reference: dict[str, str]
) -> None:
    handed: list[bytes | Staged | None] = []

    def recording(jobs: Iterable[ShardJob], recipe: Recipe, area: StagingArea | None = None) -> Iterator[Made]:
        for made in in_worker(jobs, recipe, area=area):
            handed.append(made.data)
            yield made

    make_run(tmp_path / "run", recipe, PLAN, recording, by="workers")
    assert [type(data) for data in handed] == [Staged] * 4
    assert digests(tmp_path / "run") == reference


def test_what_a_worker_sends_to_the_driver_does_not_grow_with_the_classes_or_the_images(area: StagingArea) -> None:
    job = Plan(classes=tuple(range(1000)), per_class=100, shard_size=10_000).job(0)
    result = JobResult(os.urandom(2**20), GateCounts(again=10_000, missed=10_000))
    handover = make_and_hand_over(job, lambda: result, area)
    assert len(pickle.dumps((handover, "n" * 56, 1.0, dict.fromkeys(["load", "label", "encode", "upload"], 1.0)))) < 700


def test_a_worker_elsewhere_hands_over_the_bytes_and_says_why(area: StagingArea, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for place in ("other", "nowhere"):
        elsewhere = dataclasses.replace(area, uri=str(tmp_path / place))
        handover = make_and_hand_over(JOB, lambda: JobResult(b"a shard"), elsewhere)
        assert handover.data == b"a shard"
        assert "is not the one that the driver uses" in handover.kept_from
    assert list((tmp_path / "other").iterdir()) == []


def test_a_worker_that_has_to_publish_and_cannot_fails_before_the_work(area: StagingArea, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(area, uri=str(tmp_path / "other"), required=True)
    with pytest.raises(
        UserError,
        match=r"cannot publish its shards .*other on the worker's machine .*--publish head",
    ):
        make_and_hand_over(JOB, lambda: pytest.fail("the shard was made"), elsewhere)


def test_a_worker_without_credentials_or_with_a_broken_client_hands_over_the_bytes(
    area: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (UserError("no credentials"), ValueError("Invalid endpoint")):

        def refuse(*_: object, error: Exception = error) -> bytes:
            raise error

        monkeypatch.setattr(Folder, "read", refuse)
        assert hand_over(area) == b"a shard"
        assert hindrance_to_staging(area) == str(error)


@pytest.mark.parametrize("required", [False, True])
def test_a_shard_that_a_worker_fails_to_write_is_handed_over_or_made_again(
    store: Folder, area: StagingArea, monkeypatch: pytest.MonkeyPatch, required: bool
) -> None:
    area = dataclasses.replace(area, required=required)
    assert hindrance_to_staging(area) == ""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    if required:
        with pytest.raises(UserError, match=r"a worker could not publish its shard: .*the disk is full"):
            hand_over(area)
    else:
        assert hand_over(area) == b"a shard"
    assert os.listdir(store.path) == [area.sign]


def test_a_generator_is_never_staged(area: StagingArea) -> None:
    assert hand_over(area, PLAN.preparation()) == b"a shard"


def test_a_staging_area_leaves_nothing_behind(store: Folder) -> None:
    with staging_area(store, "", required=False, check=lambda: None) as area:
        assert isinstance(hand_over(area), Staged)
        assert store.names() == set()
        assert len(os.listdir(store.path)) == 2
    assert os.listdir(store.path) == []


def test_a_driver_that_lost_the_run_leaves_the_staging_area_of_the_next_one(store: Folder) -> None:
    def lost() -> None:
        raise LostLockError("another has it")

    with staging_area(store, "", required=False, check=lambda: None) as other:
        with staging_area(store, "", required=False, check=lost):
            pass
        with staging_area(store, "", required=False, check=lambda: None):
            pass
        staged = hand_over(other)
        assert isinstance(staged, Staged)
        assert store.read(staged.name, 100) == b"a shard"


def test_a_late_worker_of_a_replaced_run_changes_nothing(tmp_path: Path, recipe: Recipe) -> None:
    other = dataclasses.replace(PLAN, seed=6)
    make_run(tmp_path / "other", recipe, other)
    store = Folder(tmp_path / "run")

    def replaced(jobs: Iterable[ShardJob], recipe: Recipe, area: StagingArea) -> Generator[Made, None, None]:
        """After the second shard, another driver replaces the run. The first one's workers do not notice."""
        late = stage(shard_name(3), b"a shard of the run that was replaced", area)
        yield from in_worker([next(jobs), next(jobs)], recipe, area=area)  # type: ignore[call-overload]
        index = open_run(store, card_for(recipe, other), resume=False, overwrite=True)
        publish(store, index, recipe, in_worker, lambda samples: None, by="workers")
        assert hand_over(area) == b"a shard"
        with pytest.raises(UserError, match="or the driver's run has ended"):
            stage(shard_name(0), b"a shard", area)
        assert not (store.path / late.name).exists()
        lost.append("another has it")
        yield from in_worker(jobs, recipe, area=area)

    lost: list[str] = []

    def check() -> None:
        if lost:
            raise LostLockError(lost[0])

    index = open_run(store, card_for(recipe, PLAN), resume=False, overwrite=False)
    with pytest.raises(LostLockError):
        publish(store, index, recipe, replaced, lambda samples: None, check=check, by="auto")  # type: ignore[arg-type]
    assert digests(store.path) == digests(tmp_path / "other")


def test_of_two_copies_with_different_bytes_the_first_counts_and_a_dead_workers_shard_is_removed(
    tmp_path: Path, recipe: Recipe, reference: dict[str, str]
) -> None:
    def copied(jobs: Iterable[ShardJob], recipe: Recipe, area: StagingArea) -> Generator[Made, None, None]:
        for job in jobs:
            make_and_hand_over(job, partial(make_shard, job, recipe), area)  # then the worker dies
            yield from in_worker([job], recipe, area=area)
            stage(shard_name(job.number), b"a copy from another kind of device", area)

    make_run(tmp_path / "run", recipe, PLAN, copied, by="workers")  # type: ignore[arg-type]
    assert digests(tmp_path / "run") == reference


def test_a_staged_shard_that_is_gone_ends_the_run_with_one_line_and_is_made_again(
    tmp_path: Path, recipe: Recipe, reference: dict[str, str]
) -> None:
    def lossy(jobs: Iterable[ShardJob], recipe: Recipe, area: StagingArea) -> Generator[Made, None, None]:
        for made in in_worker(jobs, recipe, area=area):
            if made.job.number == 2:
                assert isinstance(made.data, Staged)
                (tmp_path / "run" / made.data.name).unlink()
            yield made

    with pytest.raises(UserError, match=r"shard-000002.tar: what a worker wrote is gone: .* --resume") as caught:
        make_run(tmp_path / "run", recipe, PLAN, lossy, by="workers")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    index, problems = verify(Folder(tmp_path / "run"))
    assert [problem for problem in problems if "not complete" not in problem] == []
    assert 2 not in index.entries
    assert {0, 1} <= set(index.entries)
    make_run(tmp_path / "run", recipe, PLAN, in_worker, resume=True, by="workers")
    assert digests(tmp_path / "run") == reference


def test_a_killed_drivers_staged_shards_are_removed_when_the_run_goes_on(
    tmp_path: Path, recipe: Recipe, reference: dict[str, str]
) -> None:
    store = Folder(tmp_path / "run")
    open_run(store, card_for(recipe, PLAN), resume=False, overwrite=False)
    area = StagingArea(store.uri, "0123456789abcdef", "start again")
    store.write(area.sign, b"")
    store.write(area.new_name(shard_name(1)), b"a shard whose driver was killed before it could name it")
    assert read_index(store).entries == {}
    assert store.names() == {PART}
    make_run(store.path, recipe, PLAN, in_worker, resume=True, by="workers")
    assert digests(store.path) == reference
    assert INDEX in reference
