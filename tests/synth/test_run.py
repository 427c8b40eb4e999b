import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from synth.basics.errors import UsageError, UserError
from synth.basics.way_on import WayOn
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import save_checkpoint
from synth.executors.executor import Executor, Made, in_process
from synth.executors.handover import Staged, StagingArea
from synth.making.make import JobResult, Recipe, make_shard
from synth.run.lock import Lock, LostLockError
from synth.run.publish import open_run, publish, verify
from synth.shards.index import GENERATOR, INDEX, PART, Index, read_index, shard_name
from synth.shards.plan import Plan, ShardJob
from synth.shards.store import Folder
from tests.faults import wait_until
from tests.runs import EXECUTORS, card_for, digests, in_worker, make_run, recipe_for

PLAN = Plan(classes=tuple(range(10)), per_class=6, shard_size=15, seed=5)  # 4 shards


@pytest.fixture(scope="module")
def recipe(tiny_teacher: Classifier) -> Recipe:
    return recipe_for(tiny_teacher)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    """A run without interruption. Read only."""
    path = tmp_path_factory.mktemp("reference") / "run"
    make_run(path, recipe, PLAN)
    return path


@pytest.fixture
def run(reference: Path, tmp_path: Path) -> Folder:
    """A copy of the reference for one test."""
    shutil.copytree(reference, tmp_path / "run")
    return Folder(tmp_path / "run")


def stopping(after: int, how: BaseException, by: str) -> Executor:
    """The executor of that way of publishing, which raises `how` after `after` shards."""

    def execute(jobs: Iterable[ShardJob], recipe: Recipe, area: StagingArea | None = None) -> Iterator[Made]:
        for count, made in enumerate(EXECUTORS[by](jobs, recipe, area=area)):
            if count == after:
                raise how
            yield made

    return execute  # type: ignore[return-value]


def recording(made: list[int]) -> Executor:
    def execute(jobs: Iterable[ShardJob], recipe: Recipe) -> Iterator[Made]:
        for one in in_process(jobs, recipe):
            made.append(one.job.number)
            yield one

    return execute


def test_a_run_is_its_shards_and_an_index_and_nothing_else(reference: Path) -> None:
    assert set(digests(reference)) == {INDEX, *map(shard_name, range(4))}
    index, problems = verify(Folder(reference))
    assert problems == []
    assert (index.complete, index.samples) == (True, 60)


def test_two_runs_have_the_same_bytes(reference: Path, tmp_path: Path, recipe: Recipe) -> None:
    make_run(tmp_path / "again", recipe, PLAN)
    assert digests(tmp_path / "again") == digests(reference)


def test_the_order_of_the_shards_does_not_change_the_bytes(reference: Path, tmp_path: Path, recipe: Recipe) -> None:
    make_run(tmp_path / "back", recipe, PLAN, lambda jobs, recipe: in_process(reversed(list(jobs)), recipe))
    assert digests(tmp_path / "back") == digests(reference)


@pytest.mark.parametrize(("after", "by"), [(0, "head"), (1, "head"), (3, "head"), (2, "workers")])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    reference: Path, tmp_path: Path, recipe: Recipe, after: int, by: str
) -> None:
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        make_run(path, recipe, PLAN, stopping(after, KeyboardInterrupt(), by), by=by)
    assert set(digests(path)) == {PART, *map(shard_name, range(after))}
    index = read_index(Folder(path))
    assert (index.complete, sorted(index.entries)) == (False, list(range(after)))
    _, problems = verify(Folder(path))
    assert problems == [f"{path} is not complete: {after} of 4 shards are published"]
    made: list[int] = []
    make_run(path, recipe, PLAN, recording(made), resume=True)
    assert made == list(range(after, 4))
    assert digests(path) == digests(reference)


def test_a_driver_killed_midway_resumes_to_the_same_bytes(
    reference: Path, tmp_path: Path, recipe: Recipe, tiny_teacher: Classifier
) -> None:
    save_checkpoint(tiny_teacher, tmp_path / "t.safetensors")
    run = subprocess.run(
        [sys.executable, "-c", KILLED_DRIVER, str(tmp_path), repr(PLAN)], env={**os.environ, "PYTHONPATH": "."}
    )
    assert run.returncode == -signal.SIGKILL
    path = tmp_path / "run"
    left = set(digests(path))
    assert {shard_name(0), shard_name(1)} < left
    assert INDEX not in left
    assert any(name.endswith(".tmp") for name in left)
    make_run(path, recipe, PLAN, resume=True)
    assert digests(path) == digests(reference)


KILLED_DRIVER = """
import os, signal, stat, sys, torch
from pathlib import Path
from synth.shards.plan import Plan
from synth.shards.store import Folder
from synth.checkpoint.file import load_checkpoint
from tests.runs import make_run, recipe_for
torch.set_num_threads(1)
folder = Path(sys.argv[1])
flush, flushed = os.fsync, []
def fsync(descriptor):
    flushed.extend([descriptor] * stat.S_ISREG(os.fstat(descriptor).st_mode))  # folders do not count
    if len(flushed) == 5:  # index, shard 0, index, shard 1 and now, before its name, shard 2
        os.kill(os.getpid(), signal.SIGKILL)
    flush(descriptor)
os.fsync = fsync
make_run(folder / "run", recipe_for(load_checkpoint(folder / "t.safetensors")), eval(sys.argv[2]))
"""


def test_resume_makes_only_what_is_missing_or_damaged(run: Folder, reference: Path, recipe: Recipe) -> None:
    run.remove(shard_name(1))
    run.write(shard_name(3), b"!" + run.read(shard_name(3), 2**20)[1:])
    made: list[int] = []
    make_run(run.path, recipe, PLAN, recording(made), resume=True)
    assert made == [1, 3]
    assert digests(run.path) == digests(reference)


def test_resume_of_a_complete_run_tidies_up_what_a_kill_left(run: Folder, reference: Path, recipe: Recipe) -> None:
    run.write(PART, run.read(INDEX, 2**20))  # killed between its last two steps
    (run.path / ".shard-000001.tar.1.tmp").write_bytes(b"rest")
    assert open_run(run, card_for(recipe, PLAN), resume=True, overwrite=False).complete
    assert digests(run.path) == digests(reference)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plan": dataclasses.replace(PLAN, seed=6)}, "its seed is 5, not 6"),
        ({"plan": dataclasses.replace(PLAN, per_class=7)}, "its per_class is 6, not 7"),
        ({"plan": dataclasses.replace(PLAN, shard_size=16)}, "its shard_size is 15, not 16"),
        ({"plan": dataclasses.replace(PLAN, classes=(1, 2))}, "its classes is"),
        ({"method": "other"}, "its method is deepinversion, not other"),
        ({"teacher_sha256": "0" * 64}, "its teacher_sha256 is"),
        ({"device": "cuda"}, "its device is cpu, 1 threads, not cuda"),
    ],
)
def test_resume_of_another_run_names_what_differs(
    run: Folder, recipe: Recipe, changes: dict[str, object], words: str
) -> None:
    card = dataclasses.replace(card_for(recipe, PLAN), **changes)  # type: ignore[arg-type]
    before = digests(run.path)
    with pytest.raises(UsageError, match=words):
        open_run(run, card, resume=True, overwrite=False)
    assert digests(run.path) == before


def test_resume_with_other_settings_names_the_setting(run: Folder, recipe: Recipe) -> None:
    other = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, steps=99))
    with pytest.raises(UsageError, match=f"its steps is {recipe.settings.steps}, not 99"):
        open_run(run, card_for(other, PLAN), resume=True, overwrite=False)


def test_other_package_versions_may_resume(run: Folder, recipe: Recipe) -> None:
    card = dataclasses.replace(card_for(recipe, PLAN), versions={"torch": "99"})
    assert open_run(run, card, resume=True, overwrite=False).complete


def test_an_existing_run_is_refused_without_resume_and_overwrite(run: Folder, recipe: Recipe) -> None:
    before = digests(run.path)
    with pytest.raises(
        UsageError, match="already holds a complete run: go on with --resume, replace it with --overwrite"
    ):
        open_run(run, card_for(recipe, PLAN), resume=False, overwrite=False)
    assert digests(run.path) == before


def test_overwrite_removes_the_runs_own_files_only(run: Folder, recipe: Recipe) -> None:
    small = Plan(classes=(1, 2), per_class=2, shard_size=2)
    (run.path / ".shard-000001.tar.1.tmp").write_bytes(b"rest")
    open_run(run, card_for(recipe, small), resume=False, overwrite=True)
    assert set(digests(run.path)) == {PART}
    publish(run, read_index(run), recipe, in_process, lambda samples: None)
    assert set(digests(run.path)) == {INDEX, shard_name(0), shard_name(1)}


def test_overwrite_removes_nothing_if_there_is_another_file(run: Folder, recipe: Recipe) -> None:
    (run.path / ".DS_Store").write_text("mine")
    before = digests(run.path)
    with pytest.raises(UsageError, match=r"already holds other files \(.DS_Store"):
        open_run(run, card_for(recipe, PLAN), resume=False, overwrite=True)
    assert digests(run.path) == before


@pytest.mark.parametrize("removals", range(6))
def test_overwrite_recovers_from_its_own_interruption(run: Folder, recipe: Recipe, removals: int) -> None:
    class Interrupted(Folder):
        left = removals

        def remove(self, name: str) -> None:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            super().remove(name)

    with pytest.raises(KeyboardInterrupt):
        open_run(Interrupted(run.path), card_for(recipe, PLAN), resume=False, overwrite=True)
    index, _ = verify(run)  # what is left counts as a run until its index goes
    assert len(index.entries) == 4
    open_run(run, card_for(recipe, PLAN), resume=False, overwrite=True)
    assert set(digests(run.path)) == {PART}


@pytest.mark.parametrize("name", [INDEX, PART])
def test_overwrite_recovers_from_a_damaged_index(run: Folder, recipe: Recipe, name: str) -> None:
    run.remove(INDEX)
    run.write(name, b"nonsense")
    open_run(run, card_for(recipe, PLAN), resume=False, overwrite=True)
    assert set(digests(run.path)) == {PART}


def test_overwrite_keeps_shards_without_an_index(run: Folder, recipe: Recipe) -> None:
    run.remove(INDEX)
    before = digests(run.path)
    with pytest.raises(UsageError, match=f"already holds other files .{shard_name(0)}"):
        open_run(run, card_for(recipe, PLAN), resume=False, overwrite=True)
    assert digests(run.path) == before


def test_overwrite_keeps_a_generator_without_a_run(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / GENERATOR).write_bytes(b"mine")
    with pytest.raises(UsageError, match=f"already holds other files .{GENERATOR}"):
        open_run(Folder(tmp_path), card_for(recipe, PLAN), resume=False, overwrite=True)
    assert (tmp_path / GENERATOR).read_bytes() == b"mine"


def test_a_folder_with_other_files_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match=r"already holds other files \(photo.jpg, ...\): choose a new folder"):
        make_run(tmp_path, recipe, PLAN)
    assert set(digests(tmp_path)) == {"photo.jpg"}


def test_failed_shards_are_named_and_the_others_published(reference: Path, tmp_path: Path, recipe: Recipe) -> None:
    def two_fail(jobs: Iterable[ShardJob], recipe: Recipe) -> Iterator[Made]:
        for made in in_process(jobs, recipe):
            yield Made(made.job, None, f"no luck {made.job.number}") if made.job.number in (1, 2) else made

    with pytest.raises(UserError, match="2 of 4 shards failed: 1, 2; first error: no luck 1"):
        make_run(tmp_path / "run", recipe, PLAN, two_fail)
    assert sorted(read_index(Folder(tmp_path / "run")).entries) == [0, 3]
    make_run(tmp_path / "run", recipe, PLAN, resume=True)
    assert digests(tmp_path / "run") == digests(reference)


def test_a_user_error_of_one_shard_ends_a_run_only_before_the_first_shard(
    reference: Path, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky = [0]

    def make(job: ShardJob, recipe: Recipe) -> JobResult:
        if job.number in unlucky:
            raise UserError(f"no memory for {job.number}: use another device")
        return make_shard(job, recipe)

    monkeypatch.setattr("synth.executors.executor.make_shard", make)
    with pytest.raises(UserError, match=r"^no memory for 0: use another device$"):
        make_run(tmp_path / "run", recipe, PLAN)
    assert not read_index(Folder(tmp_path / "run")).entries
    unlucky[:] = [1]
    for _ in range(2):  # the second time, shard 1 is the first to be made
        with pytest.raises(
            UserError, match="1 of 4 shards failed: 1; first error: no memory for 1: use another device"
        ):
            make_run(tmp_path / "run", recipe, PLAN, resume=True)
        assert sorted(read_index(Folder(tmp_path / "run")).entries) == [0, 2, 3]
    unlucky.clear()
    make_run(tmp_path / "run", recipe, PLAN, resume=True)
    assert digests(tmp_path / "run") == digests(reference)


@pytest.mark.parametrize(("interrupted", "by"), [(False, "head"), (True, "head"), (False, "auto"), (True, "auto")])
def test_a_driver_whose_run_was_taken_over_writes_nothing_more(
    tmp_path: Path, recipe: Recipe, interrupted: bool, by: str
) -> None:
    store = Folder(tmp_path / "run")
    lock = Lock(store, WayOn(command="synth generate"))
    index = open_run(store, card_for(recipe, PLAN), resume=False, overwrite=False)
    others: dict[str, str] = {}

    def taken_over(jobs: Iterable[ShardJob], recipe: Recipe, area: StagingArea | None = None) -> Iterator[Made]:
        """While the third shard is made, another driver replaces the run."""
        for made in in_worker(jobs, recipe, area=area):
            if made.job.number == 2:
                assert isinstance(made.data, bytes if by == "head" else Staged)
                wait_until(lambda: shard_name(1) in store.names(), "the second shard")
                for name in store.names():
                    store.write(name, b"the other driver's")
                store.remove_temporaries()
                others.update(digests(store.path))
                lock.lost = "another has it"
                if interrupted:
                    raise KeyboardInterrupt
            yield made

    with pytest.raises(KeyboardInterrupt if interrupted else LostLockError):
        publish(store, index, recipe, taken_over, lambda samples: None, check=lock.check, by=by)
    assert digests(store.path) == others


@pytest.mark.parametrize(("by", "flushes"), [("head", 5), ("auto", 15)])
def test_a_full_disk_ends_the_run_with_the_cure_and_keeps_the_published_shards(
    reference: Path, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, by: str, flushes: int
) -> None:
    flush, left = os.fsync, [flushes]

    def fill(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        with pytest.raises(UserError, match="the disk is full: free some space and start the same command again"):
            make_run(tmp_path / "run", recipe, PLAN, in_worker, by=by)
    published = digests(tmp_path / "run")
    assert 0 < len(published) < 5
    assert all(digests(reference)[name] == digest for name, digest in published.items() if name != PART)
    make_run(tmp_path / "run", recipe, PLAN, resume=True)
    assert digests(tmp_path / "run") == digests(reference)


def test_a_shard_that_could_not_be_written_is_not_in_the_index(tmp_path: Path, recipe: Recipe) -> None:
    class Failing(Folder):
        def write(self, name: str, data: bytes) -> None:
            if name == shard_name(2):
                raise UserError("no")
            super().write(name, data)

    store = Failing(tmp_path / "run")
    index = open_run(store, card_for(recipe, PLAN), resume=False, overwrite=False)
    with pytest.raises(UserError, match="no"):
        publish(store, index, recipe, in_process, lambda samples: None)
    index, problems = verify(store)
    assert {0, 1} <= set(index.entries) <= {0, 1, 3}  # the upload of shard 3 may have begun
    assert problems == [f"{store} is not complete: {len(index.entries)} of 4 shards are published"]


class Sink(Folder):
    """A store that drops shards, and is so slow that the largest permitted number of uploads is in flight."""

    def write(self, name: str, data: bytes) -> None:
        if name == INDEX:
            super().write(name, data)
        time.sleep(0.02)


def peak_of_publishing(path: Path, shards: int, recipe: Recipe) -> int:
    def large(jobs: Iterable[ShardJob], recipe: Recipe) -> Iterator[Made]:
        for job in jobs:
            yield Made(job, bytes([job.number % 256]) * 2**20)

    card = card_for(recipe, Plan(classes=tuple(range(10)), per_class=shards * 100, shard_size=1000))
    path.mkdir()
    tracemalloc.start()
    publish(Sink(path), Index(card, {}, complete=False), recipe, large, lambda samples: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_the_drivers_memory_does_not_grow_with_the_images(tmp_path: Path, recipe: Recipe) -> None:
    few = peak_of_publishing(tmp_path / "few", 20, recipe)
    many = peak_of_publishing(tmp_path / "many", 200, recipe)
    assert many < few + 2 * 2**20  # 180 MB more went through; an entry of the index takes a few kB


def test_verify_finds_a_flipped_byte_a_missing_shard_and_wrong_counts(run: Folder) -> None:
    index = read_index(run)
    data = bytearray(run.read(shard_name(0), 2**20))
    data[len(data) // 2] ^= 1
    run.write(shard_name(0), bytes(data))
    run.remove(shard_name(1))
    entries = {**index.entries, 2: dataclasses.replace(index.entries[2], class_counts={0: 15})}
    run.write(INDEX, dataclasses.replace(index, entries=entries).to_bytes())
    _, problems = verify(run)
    assert [problem.split(":")[0].removeprefix(f"{run}/") for problem in problems] == [
        f"{shard_name(0)} is damaged (its sha256 differs from the index)",
        f"{shard_name(1)} is missing",
        shard_name(2),
    ]
    assert "the class counts of the index are not those of its 15 images" in problems[2]
