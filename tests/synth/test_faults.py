"""After each fault every planned sample is there exactly once, every hash is right, and no other file is there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from synth.basics.way_on import WayOn
from synth.checkpoint.classifier import Classifier
from synth.executors.executor import in_process
from synth.run.lock import LOCK, locked
from synth.run.publish import open_run, publish
from synth.shards.index import read_index
from synth.shards.plan import Plan
from synth.shards.store import Folder
from tests.faults import (
    assert_nothing_false,
    assert_whole,
    finish,
    generate,
    kill_family,
    ray_workers,
    shards,
    wait_for_shards,
)
from tests.runs import card_for, digests, recipe_for

pytestmark = pytest.mark.ray


def test_a_killed_worker_loses_no_sample(tiny_teacher_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = generate(
        tiny_teacher_path, out, "--address", "local", "--workers", "2", "--steps", "100", "--log-level", "warning"
    )
    wait_for_shards(out, 2)
    killed = 0
    while killed < 2 and process.poll() is None:
        for pid in ray_workers(process.pid)[:1]:
            os.kill(pid, signal.SIGKILL)
            killed += 1
            wait_for_shards(out, min(20, len(shards(Folder(out))) + 1))
    said = finish(process)
    assert killed == 2
    assert '"event": "retried"' in said
    assert_whole(out)


def test_a_killed_driver_loses_no_sample(tiny_teacher_path: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    process = generate(tiny_teacher_path, out, "--address", "none")
    wait_for_shards(out, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (out / LOCK).exists()
    assert_nothing_false(out)
    finish(generate(tiny_teacher_path, out, "--address", "none", "--resume"))
    assert_whole(out)
    finish(generate(tiny_teacher_path, other, "--address", "none"))
    assert digests(out) == digests(other)


@pytest.mark.long
def test_a_run_goes_on_with_another_cluster_after_its_cluster_died(tiny_teacher_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = generate(tiny_teacher_path, out, "--address", "local", "--workers", "2", "--steps", "100")
    wait_for_shards(out, 3)
    kill_family(process)
    assert_nothing_false(out)
    finish(generate(tiny_teacher_path, out, "--address", "local", "--workers", "2", "--steps", "100", "--resume"))
    assert_whole(out)


@pytest.mark.parametrize("address", ["none", "local"])
def test_a_run_ended_by_sigterm_can_be_resumed(tiny_teacher_path: Path, tmp_path: Path, address: str) -> None:
    out = tmp_path / "run"
    workers = ["--workers", "1"] if address == "local" else []
    process = generate(tiny_teacher_path, out, "--address", address, *workers, "--steps", "100")
    wait_for_shards(out, 3)
    process.terminate()
    assert "go on with the same command and --resume" in finish(process, 130)
    published = len(shards(Folder(out)))
    assert len(read_index(Folder(out)).entries) == published
    assert not (out / LOCK).exists()
    finish(generate(tiny_teacher_path, out, "--address", "none", "--steps", "100", "--resume"))
    assert_whole(out)


def test_a_second_driver_is_refused_and_the_first_goes_on(tiny_teacher_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with locked(Folder(out), WayOn(command="synth generate"), lambda line: None) as first:
        for option in ("--resume", "--overwrite"):
            said = finish(generate(tiny_teacher_path, out, "--address", "none", option), 1)
            assert f"'synth generate' (process {os.getpid()} on " in said
        first.check()
        assert Folder(out).names() == {LOCK}


def test_a_full_disk_is_named_and_the_run_can_be_resumed_with_more_space(
    tiny_teacher_path: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here: that needs root")
    try:
        options = ("--address", "none", "--per-class", "40", "--steps", "50")
        process = generate(tiny_teacher_path, disk / "run", *options)
        wait_for_shards(disk / "run", 1)
        with suppress(OSError), (disk / "of somebody else").open("wb", buffering=0) as file:
            file.write(bytes(2**22))
        said = finish(process, 1)
        assert "the disk is full: free some space and go on with the same command and --resume" in said
        assert_nothing_false(disk / "run")
        published = len(shards(Folder(disk / "run")))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        finish(generate(tiny_teacher_path, disk / "run", *options, "--resume"))
        assert published > 0
        assert_whole(disk / "run", 400)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_shard_published_but_not_yet_listed_is_made_again(tiny_teacher: Classifier, tmp_path: Path) -> None:
    recipe = recipe_for(tiny_teacher)
    card = card_for(recipe, Plan(classes=(0, 1), per_class=4, shard_size=2))
    store = Folder(tmp_path / "run")
    index = open_run(store, card, False, False)
    store.write("shard-000001.tar", b"half a shard of a driver that was killed before it could list it")
    publish(store, index, recipe, in_process, lambda samples: None)
    assert_whole(store.path, 8)
