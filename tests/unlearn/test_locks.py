"""One writer per folder or checkpoint: a second command is refused in one line, and a dead lock stops nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from synth.basics.errors import UserError
from synth.basics.way_on import WayOn
from synth.checkpoint.file import SETTINGS
from synth.run.lock import LOCK, Lock, locked, locked_file
from synth.shards.store import Folder
from tests.faults import finish, wait_until
from tests.runs import digests
from unlearn.auditing import audit as auditing
from unlearn.commands.main import main
from unlearn.commands.unlearning import COMMANDS
from unlearn.methods import METHODS, needs_teacher
from unlearn.methods.distill import LOOP, Distillation
from unlearn.methods.distill_settings import DistillSettings
from unlearn.report.replay import replay as replaying
from unlearn.run import carry_out as runs
from unlearn.run import sweep as sweeping
from unlearn.run.folder import RunFolder

HELD = WayOn(command="unlearn gkt")


def quiet(line: str) -> None:
    """Takes a line for a person and drops it."""


def asked(method: str, teacher: Path, shards: Path, out: Path) -> list[str]:
    options = [method, "--shards", str(shards), "--forget", "0", "--out", str(out), "--device", "cpu"]
    return [*options, "--teacher", str(teacher)] if needs_teacher(METHODS.declared(method)) else options


def refused(arguments: list[str], folder: Path) -> None:
    before = digests(folder)
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert done.stdout in ("", "forgets class 0\n")
    assert f"'unlearn gkt' (process {os.getpid()} on " in done.stderr
    assert "is working on" in done.stderr
    assert done.stderr.endswith(": wait for it, end it, or choose another --out\n")
    assert digests(folder) == before


@pytest.mark.parametrize("method", METHODS.names())
def test_a_second_run_in_a_folder_is_refused_whatever_it_is_asked_for(
    method: str, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    with locked(Folder(tmp_path / "run"), HELD, quiet):
        (tmp_path / "run" / SETTINGS).write_text("{}")
        for option in ([], ["--resume"], ["--overwrite"]):
            refused([*asked(method, tiny_teacher_path, tiny_run, tmp_path / "run"), *option], tmp_path / "run")


def test_a_second_sweep_is_refused(tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path) -> None:
    options = ["--method", "edit", "--over", "steps=1,2", "--forget", "0", "--out", str(tmp_path), "--data", "digits"]
    options += ["--teacher", str(tiny_teacher_path), "--shards", str(tiny_run), "--no-monitor", "--device", "cpu"]
    with locked(Folder(tmp_path), HELD, quiet):
        refused(["sweep", *options], tmp_path)


IMPORT = ["--arch", "lenet5", "--classes", "10", "--input-shape", "1,28,28", "--mean", "0", "--std", "1"]


@pytest.mark.parametrize("option", [[], ["--overwrite"]])
@pytest.mark.parametrize(
    "arguments", [["train", "--arch", "lenet5", "--data", "digits"], ["import", "absent.pt", *IMPORT]]
)
def test_a_second_writer_of_a_checkpoint_is_refused(arguments: list[str], option: list[str], tmp_path: Path) -> None:
    out = tmp_path / "teacher.safetensors"
    given = [*arguments, "--out", str(out)]
    with locked_file(out, HELD, quiet):
        refused([*given, *option], tmp_path)
        with locked_file(tmp_path / "other.safetensors", HELD, quiet):  # another file of the folder
            assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_one_has_the_folder_and_a_killed_one_stops_nobody(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "unlearn",
        "distill",
        "--shards",
        str(tiny_run),
        "--forget",
        "0",
        "--out",
        str(out),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, "--device", "cpu", "--steps", "100000"], text=True, **pipes) as process:
        wait_until(lambda: (out / SETTINGS).exists(), "the run to begin")
        settings = DistillSettings(steps=20, batch_size=8)
        for changes in ({"overwrite": True}, {"resume": False}):
            request = runs.Request(
                method="distill", settings=settings, loop=LOOP, shards=str(tiny_run), forget=(0,), out=out, **changes
            )
            with pytest.raises(UserError, match=rf"'unlearn distill' \(process {process.pid} on .*\) is working on"):
                runs.unlearn(request, quiet)
        process.send_signal(signal.SIGKILL)
        finish(process, -signal.SIGKILL)
    assert (out / LOCK).exists()
    started = time.monotonic()
    runs.unlearn(runs.Request(**{**vars(request), "overwrite": True}), quiet)
    assert time.monotonic() - started < 30  # no wait for another machine's sign of life
    assert RunFolder(out, HELD).settings()["steps"] == 20
    assert not (out / LOCK).exists()


@pytest.mark.parametrize("ended", [KeyboardInterrupt, ZeroDivisionError])
def test_the_lock_goes_when_a_run_ends_in_any_way(
    ended: type[BaseException], tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(folder: RunFolder, step: int, values: dict[str, float]) -> None:
        assert (folder.path / LOCK).exists()
        raise ended

    monkeypatch.setattr(RunFolder, "log", end)
    settings = DistillSettings(steps=2, batch_size=8)
    request = runs.Request(
        method="distill", settings=settings, loop=LOOP, shards=str(tiny_run), forget=(0,), out=tmp_path / "run"
    )
    with pytest.raises((UserError, ended)):
        runs.unlearn(request, quiet)
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_run_that_was_taken_over_writes_nothing_more(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Lock] = []

    @contextmanager
    def beating(*given: Any) -> Iterator[Lock]:
        with locked(*given, beat=0.01) as lock:
            held.append(lock)
            yield lock

    def lose(method: object, step: int) -> dict[str, float]:
        def other_writes() -> bool:  # again and again, because this process may be about to write as well
            Folder(tmp_path / "run").write(LOCK, b'{"owner": "x", "command": "unlearn gkt", "pid": 7, "host": "far"}')
            return held[0].lost is not None

        wait_until(other_writes, "the loss to be seen")
        return {}

    monkeypatch.setattr(runs, "locked", beating)
    monkeypatch.setattr(Distillation, "step", lose)
    request = runs.Request(
        method="distill",
        settings=DistillSettings(steps=1),
        loop=LOOP,
        shards=str(tiny_run),
        forget=(0,),
        out=tmp_path / "run",
    )
    with pytest.raises(UserError, match=r"'unlearn gkt' \(process 7 on far\) has taken over .*: let that one finish"):
        runs.unlearn(request, quiet)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == b""


WAYS = {name: runs.Request(method=name, settings=None, loop=LOOP, forget=(0,), out=Path()).way_on for name in COMMANDS}
WAYS |= {"audit": auditing.WAY_ON, "sweep": sweeping.WAY_ON, "replay": replaying.WAY_ON}


@pytest.mark.parametrize("name", WAYS)
def test_errors_advise_only_options_that_their_command_has(name: str) -> None:
    way_on, command = WAYS[name], main.commands[name]
    options = {flag for param in command.params for flag in param.opts}
    assert way_on.command == f"unlearn {name}"
    assert way_on.resumes == ("--resume" in options) == ("--resume" in way_on.past_files)
    assert way_on.replaces == ("--overwrite" in options) == ("--overwrite" in way_on.past_files)
    for words in (way_on.again, way_on.anew, way_on.past_files):
        assert {word.strip(",:") for word in words.split() if word.startswith("--")} <= options
