"""Runs that are interrupted, and folders that are damaged."""

import dataclasses
import io
import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from synth.basics.errors import UserError
from synth.basics.way_on import WayOn
from synth.checkpoint.file import SETTINGS, STUDENT
from unlearn.methods.distill import LOOP as DISTILL_LOOP
from unlearn.methods.distill_settings import DistillSettings
from unlearn.methods.gkt import GKTSettings
from unlearn.run import carry_out as runs
from unlearn.run.folder import CHECKPOINT, METRICS, PROVENANCE, RunFolder
from unlearn.settings import LoopSettings

GKT = GKTSettings(rounds=120, student_steps=1, batch_size=8, z=8, channels=2, attention=0.0, mask=True, gate=1.0)
DISTILL = DistillSettings(steps=500, batch_size=8)
LOOP = LoopSettings(every=5, patience=1000)
WAY_ON = WayOn(command="unlearn gkt")


def interrupted(arguments: list[object], out: Path, lines: int = 3) -> subprocess.CompletedProcess[str]:
    """Run `unlearn ...` and press Ctrl-C once it has written this number of lines of metrics."""
    command = [sys.executable, "-m", "unlearn", *map(str, arguments), "--out", str(out), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if (out / METRICS).exists() and (out / METRICS).read_bytes().count(b"\n") >= lines:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        said, error = process.communicate(timeout=120)
        return subprocess.CompletedProcess(command, process.returncode, said, error)


def check_interruption(done: subprocess.CompletedProcess[str], out: Path) -> None:
    assert done.returncode == 130, done.stderr
    kept = f"error: interrupted: the run in {out} is kept up to its last check"
    assert f"{kept}; go on with the same command and --resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / PROVENANCE).exists()


def same(once: Path, again: Path) -> None:
    for file in (SETTINGS, METRICS, STUDENT):
        assert (once / file).read_bytes() == (again / file).read_bytes()


def distill_request(shards: Path, out: Path, settings: DistillSettings) -> runs.Request:
    return runs.Request(
        method="distill", settings=settings, loop=DISTILL_LOOP, shards=str(shards), forget=(0,), out=out
    )


def test_a_run_that_gets_ctrl_c_is_resumed_with_the_same_bytes(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    def run(out: Path, **changes: Any) -> None:
        request = runs.Request(
            method="gkt", settings=GKT, loop=LOOP, teacher=tiny_teacher_path, shards=str(tiny_run), forget=(0,), out=out
        )
        runs.unlearn(dataclasses.replace(request, **changes), lambda line: None)

    options: list[object] = ["gkt", "--teacher", tiny_teacher_path, "--shards", tiny_run, "--forget", "0"]
    options += ["--rounds", 120, "--student-steps", 1, "--batch-size", 8, "--z", 8, "--channels", 2, "--attention", 0]
    options += ["--mask", "--gate", 1, "--every", 5, "--patience", 1000, "--device", "cpu"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    check_interruption(interrupted(options, broken), broken)
    run(broken, resume=True)
    run(whole)
    same(whole, broken)


def test_distill_that_was_interrupted_after_its_last_step_still_counts_its_samples(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DistillSettings(steps=20, batch_size=8)
    request = distill_request(tiny_run, tmp_path / "broken", settings)

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_provenance", interrupt)
        with pytest.raises(KeyboardInterrupt):
            runs.unlearn(request, lambda line: None)
    said: list[str] = []
    runs.unlearn(dataclasses.replace(request, resume=True), said.append)
    runs.unlearn(dataclasses.replace(request, out=tmp_path / "whole"), said.append)
    resumed, at_once = (line for line in said if line.startswith("wrote "))
    assert resumed.replace("broken", "whole") == at_once
    broken, whole = (json.loads((tmp_path / name / PROVENANCE).read_text()) for name in ("broken", "whole"))
    assert broken["samples"] == whole["samples"] != {}
    same(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("content", [b"", b'{"method": "gk', b"[1, 2]", b"\xff", b"null"])
def test_damaged_settings_are_an_error_of_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SETTINGS).write_bytes(content)
    with pytest.raises(UserError, match=r"settings\.json is damaged: start the run again with --overwrite"):
        RunFolder(tmp_path, WAY_ON).check({"method": "gkt"}, resume=True)


def test_a_checkpoint_that_is_damaged_anywhere_is_an_error_of_one_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, WAY_ON)
    folder.begin({})
    folder.save_checkpoint({"step": 3, "parts": {"student": {"weight": torch.ones(2, 2)}}})
    whole = (tmp_path / CHECKPOINT).read_bytes()
    flipped = [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(0, len(whole), 3)]
    cut = [whole[:length] for length in range(0, len(whole), 7)]
    pickled = io.BytesIO()
    torch.save([1, 2], pickled)
    sound = 0
    for content in [*flipped, *cut, pickled.getvalue()]:
        (tmp_path / CHECKPOINT).write_bytes(content)
        with suppress(UserError):
            folder.load_checkpoint()
            sound += 1
    assert sound < len(flipped) * 3 / 4  # a flipped bit in padding does no harm


def test_a_checkpoint_of_another_version_is_an_error_of_one_line(tiny_run: Path, tmp_path: Path) -> None:
    settings = DistillSettings(steps=20, batch_size=8)
    runs.unlearn(distill_request(tiny_run, tmp_path, settings), lambda line: None)
    (tmp_path / PROVENANCE).unlink()
    parts = {"student": {}, "generator": torch.ones(2)}
    RunFolder(tmp_path, WAY_ON).save_checkpoint({"step": 3, "real_images_read": 0, "parts": parts})
    request = dataclasses.replace(distill_request(tiny_run, tmp_path, settings), resume=True)
    with pytest.raises(
        UserError, match=r"checkpoint\.pt is from another version: start the run again with --overwrite"
    ):
        runs.unlearn(request, lambda line: None)


@pytest.mark.long
def test_distill_that_gets_ctrl_c_is_resumed_with_the_same_bytes(tiny_run: Path, tmp_path: Path) -> None:
    def run(out: Path, resume: bool) -> None:
        request = dataclasses.replace(distill_request(tiny_run, out, DISTILL), resume=resume)
        runs.unlearn(request, lambda line: None)

    options: list[object] = ["distill", "--shards", tiny_run, "--forget", "0", "--steps", 500, "--batch-size", 8]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    check_interruption(interrupted([*options, "--device", "cpu"], broken, lines=2), broken)
    run(broken, resume=True)
    run(whole, resume=False)
    same(whole, broken)
