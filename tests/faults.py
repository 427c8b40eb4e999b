"""Faults of clusters, caused on purpose in real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from synth.run.publish import verify
from synth.shards.index import read_index
from synth.shards.store import Store, open_store

HOSTILE = ("click", "json", "multiprocessing", "numpy", "PIL", "psutil", "ray", "safetensors", "torch", "webdataset")
PATIENCE = 120.0  # seconds; on an idle machine the same takes a few


def generate(teacher: Path, out: Path | str, *options: str) -> subprocess.Popen[str]:
    """Start `synth generate` as a process: 100 images in 20 shards."""
    command = [sys.executable, "-m", "synth", "generate", "--teacher", str(teacher), "--out", str(out)]
    command += ["--per-class", "10", "--shard-size", "5", "--views", "0", "--steps", "20", "--batch-size", "50"]
    command += options
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=dict(os.environ)
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the process to end with this exit code, and return its stderr."""
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, said
    return said


def wait_until(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            pytest.fail(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.02)


def wait_for_shards(out: Path | str, count: int) -> None:
    wait_until(lambda: len(shards(open_store(str(out)))) >= count, f"{count} shards")


def shards(store: Store) -> list[str]:
    return sorted(name for name in store.names() if name.startswith("shard-"))


def assert_whole(out: Path | str, samples: int = 100) -> None:
    """Assert that every planned sample is there once, that every hash is right, and that there is no other file."""
    store = open_store(str(out))
    index, problems = verify(store)
    assert problems == []
    assert (index.complete, index.samples) == (True, samples)
    assert shards(store) == sorted(entry.name for entry in index.entries.values())
    assert store.names() == {*shards(store), "index.json"}


def assert_nothing_false(out: Path | str) -> None:
    """Assert that everything an interrupted run lists is there and valid."""
    store = open_store(str(out))
    _, problems = verify(store)
    assert [p for p in problems if "not complete" not in p] == []
    assert not read_index(store).complete


def children(pid: int) -> list[int]:
    """The ids of the process's descendants."""
    found = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [grandchild for child in found for grandchild in children_or_none(child)]


def children_or_none(pid: int) -> list[int]:
    """The ids of the process's descendants; none if the process is gone."""
    try:
        return children(pid)
    except OSError:
        return []


def ray_workers(pid: int) -> list[int]:
    """The ids of descendants that are working on a task."""

    def title(child: int) -> str:
        try:
            return Path(f"/proc/{child}/cmdline").read_text()
        except OSError:
            return ""

    return [child for child in children_or_none(pid) if title(child).startswith("ray::attempt")]


def kill_family(process: subprocess.Popen[str]) -> None:
    """Send SIGKILL to the process and all its descendants."""
    for pid in [process.pid, *children_or_none(process.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def put_hostile_modules(folder: Path) -> Path:
    """Put files named as modules into the folder. Each that runs leaves a mark in the folder that is returned."""
    marks = folder / "marks"
    marks.mkdir()
    for module in HOSTILE:
        (folder / f"{module}.py").write_text(f"open({str(marks / module)!r}, 'w').close()\n")
    return marks
