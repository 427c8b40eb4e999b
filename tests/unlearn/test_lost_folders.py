"""A run whose folder becomes full, read-only or absent ends with one line, and can go on afterwards."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from synth.checkpoint.file import STUDENT
from unlearn.commands.main import main
from unlearn.run import sweep as sweeping
from unlearn.run.folder import CHECKPOINT, METRICS, RunFolder

CURES = {
    errno.ENOSPC: "the disk is full: free some space and ",
    errno.EROFS: "the file system is read-only: choose another folder, or make it writable and ",
    errno.EIO: "Input/output error: check the disk and ",
}
AGAIN = "go on with the same command and --resume\n"


def run(shards: Path, folder: Path, *options: str) -> tuple[int, str]:
    """The exit code and the error of a short run of distill."""
    given = ["--shards", str(shards), "--forget", "0", "--out", str(folder / "run"), "--device", "cpu"]
    done = CliRunner().invoke(main, ["distill", *given, "--steps", "3", "--batch-size", "8", *options])
    return done.exit_code, done.stderr


def break_writing(patch: pytest.MonkeyPatch, what: str, number: int) -> None:
    """Opening a file to write fails if its path has `what` in it."""
    plain, plain_append = Path.open, os.open

    def opened(path: Path, mode: str = "r", *given: Any, **others: Any) -> Any:
        if what in str(path) and mode != "r" and mode != "rb":
            raise OSError(number, os.strerror(number), str(path))
        return plain(path, mode, *given, **others)

    def appended(path: Any, flags: int, *given: Any, **others: Any) -> int:
        if what in str(path) and flags & os.O_APPEND:
            raise OSError(number, os.strerror(number), str(path))
        return plain_append(path, flags, *given, **others)

    patch.setattr(Path, "open", opened)
    patch.setattr(os, "open", appended)


@pytest.mark.parametrize("number", CURES)
@pytest.mark.parametrize("what", [CHECKPOINT, "events.out", STUDENT])
def test_a_file_that_cannot_be_written_is_one_line_and_the_run_goes_on(
    what: str, number: int, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorboard = ["--log-to", f"tensorboard:{tmp_path / 'events'}"] if what == "events.out" else []
    with monkeypatch.context() as patch:
        break_writing(patch, what, number)
        code, said = run(tiny_run, tmp_path, *tensorboard)
    (line,) = [line for line in said.splitlines(keepends=True) if line.startswith("error")]
    assert (code, line.endswith(CURES[number] + AGAIN), "Traceback" in said) == (1, True, False), said
    assert run(tiny_run, tmp_path, "--resume", *tensorboard)[0] == 0


@pytest.mark.parametrize("number", CURES)
def test_metrics_that_cannot_be_appended_are_one_line(
    number: int, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = RunFolder.log

    def fail(folder: RunFolder, step: int, values: dict[str, float]) -> None:
        with monkeypatch.context() as patch:
            break_writing(patch, METRICS, number)
            plain(folder, step, values)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", fail)
        code, said = run(tiny_run, tmp_path)
    assert (code, said.splitlines()[-1]) == (1, f"error: {tmp_path / 'run' / METRICS}: {CURES[number]}{AGAIN.strip()}")
    assert run(tiny_run, tmp_path, "--resume")[0] == 0


def test_a_folder_that_is_removed_is_one_line(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = RunFolder.log

    def remove(folder: RunFolder, step: int, values: dict[str, float]) -> None:
        shutil.rmtree(folder.path)
        plain(folder, step, values)

    monkeypatch.setattr(RunFolder, "log", remove)
    code, said = run(tiny_run, tmp_path)
    gone = "its folder can't be made, or was removed meanwhile: choose another folder, or bring it back and "
    assert (code, said.splitlines()[-1]) == (1, f"error: {tmp_path / 'run' / METRICS}: {gone}{AGAIN.strip()}")


def test_a_sweep_that_is_interrupted_names_its_own_way_on(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "log", interrupt)
    options = ["--method", "edit", "--over", "steps=1,2", "--forget", "0", "--out", str(tmp_path), "--data", "digits"]
    options += ["--teacher", str(tiny_teacher_path), "--shards", str(tiny_run), "--no-monitor", "--device", "cpu"]
    done = CliRunner().invoke(main, ["sweep", *options])
    assert done.exit_code == 130
    assert done.stderr.endswith(f"is kept up to its last check; {sweeping.WAY_ON.again}\n")
    assert "--resume" not in done.stderr
