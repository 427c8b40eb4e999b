import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from synth.checkpoint.file import SETTINGS, STUDENT
from unlearn.commands.main import main
from unlearn.run.folder import METRICS, PROVENANCE


def unlearn(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unlearn", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment})


def refused(result: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line of an error, once it is found to be one."""
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_a_student_from_shards_alone_then_its_evaluation(
    tiny_run: Path, tiny_teacher_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = unlearn("distill", "--shards", tiny_run, "--forget", "0", "--out", out, "--steps", 120, "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert re.search(r"dropped \d+ by forget label", done.stdout)
    assert {path.name for path in out.iterdir()} == {SETTINGS, METRICS, STUDENT, PROVENANCE}
    assert [json.loads(line)["step"] for line in (out / METRICS).read_text().splitlines()] == [100, 120]
    assert json.loads((out / PROVENANCE).read_text())["real_images_read"] == 0

    options = ["--data", "digits", "--forget", "0", "--teacher", tiny_teacher_path, "--json"]
    shown = unlearn("evaluate", out / STUDENT, *options)
    models = json.loads(shown.stdout)["models"]
    assert models["student"]["forget"] == 0
    assert models["original"]["forget"] > 50
    assert models["student"]["retain"] > 11.2  # chance


def test_following_a_run_that_starts_later(tiny_run: Path, tmp_path: Path) -> None:
    command = ["distill", "--shards", tmp_path / "late", "--forget", "0", "--out", tmp_path / "run"]
    arguments = [*command, "--steps", "20", "--follow", "--follow-timeout", "60", "--threads", "1"]
    trainer = subprocess.Popen([sys.executable, "-m", "unlearn", *map(str, arguments)])
    time.sleep(3)
    shutil.copytree(tiny_run, tmp_path / "copy")
    (tmp_path / "copy").rename(tmp_path / "late")
    assert trainer.wait(timeout=120) == 0
    assert (tmp_path / "run" / STUDENT).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--forget", "12"], "forget class 12 is out of range: the teacher has 10 classes (0-9)"),
        (["--forget", "0-9"], "every class is to be forgotten"),
        (["--forget", "zero"], "the teacher has no forget class 'zero': write a number or a name of '0', '1'"),
        (["--forget", "0", "--seed", "4294967296"], "4294967296 is not in the range 0<=x<=4294967295"),
        (["--forget", "0", "--gate", "2"], "gate must be above 0 and at most 1"),
        (["--forget", "0", "--student-arch", "lenet6"], "unknown architecture 'lenet6'"),
        (["--forget", "0", "--post-filter", "--gate", "0.1"], "--gate has no effect with --post-filter"),
        (["--forget", "0", "--follow-timeout", "60"], "--follow-timeout has no effect without --follow"),
        (["--forget", "0", "--student-width", "nan"], "'--student-width': 'nan' is not a number"),
        (["--forget", "0", "--follow", "--follow-timeout", "nan"], "'--follow-timeout': 'nan' is not a number"),
    ],
)
def test_bad_requests_are_usage_errors(tiny_run: Path, tmp_path: Path, options: list[str], words: str) -> None:
    result = unlearn("distill", "--shards", tiny_run, "--out", tmp_path / "run", *options)
    assert words in refused(result, 2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["train", "--arch", "lenet5", "--data", "digits"], "--width"),
        (["import", "m", "--arch=lenet5", "--input-shape=1,28,28", "--classes=2", "--mean=0", "--std=1"], "--width"),
        (["gkt", "--forget", "0"], "--student-width"),
    ],
)
def test_a_width_is_a_number(command: list[str], option: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [*command, option, "nan", "--out", str(tmp_path / "out")])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"'{option}': 'nan' is not a number" in done.stderr


def test_missing_shards_and_a_filter_that_drops_all_are_failures(tiny_run: Path, tmp_path: Path) -> None:
    nothing = unlearn("distill", "--shards", tmp_path / "none", "--forget", "0", "--out", tmp_path / "a")
    assert "there is no run" in refused(nothing, 1)
    options = ["--gate", "1e-12", "--out", tmp_path / "b"]
    dropped = unlearn("distill", "--shards", tiny_run, "--forget", "0", *options)
    assert re.search(r"all 300 samples .* \(forget label \d+, forget probability \d+\)", refused(dropped, 1))


def test_an_existing_student_is_not_overwritten_untold(tiny_run: Path, tmp_path: Path) -> None:
    command = ["distill", "--shards", tiny_run, "--forget", "0", "--out", tmp_path / "run", "--steps", "2"]
    assert unlearn(*command).returncode == 0
    assert "--overwrite" in refused(unlearn(*command), 2)
    assert unlearn(*command, "--overwrite").returncode == 0


def test_a_run_starts_from_the_settings_of_another(tiny_run: Path, tmp_path: Path) -> None:
    command = ["distill", "--shards", tiny_run, "--threads", "1"]
    first = unlearn(*command, "--forget", "3", "--steps", "2", "--batch-size", "8", "--out", tmp_path / "first")
    assert first.returncode == 0, first.stderr
    settings = tmp_path / "first" / SETTINGS
    again = unlearn(*command, "--config", settings, "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / STUDENT).read_bytes() == (tmp_path / "first" / STUDENT).read_bytes()


def test_evaluating_on_other_data_names_the_mismatch(tiny_teacher_path: Path, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "test" / name / "a.png")
    given = ["evaluate", tiny_teacher_path, "--data", tmp_path, "--forget", "0"]
    result = CliRunner().invoke(main, list(map(str, given)))
    read, refusal = result.stderr.splitlines()
    assert (result.exit_code, read) == (2, f"read 2 images of 2 classes from {tmp_path}/test")
    assert "takes images [1, 28, 28] of 10 classes" in refusal


def test_options_come_from_the_environment(tiny_teacher_path: Path) -> None:
    result = unlearn("evaluate", tiny_teacher_path, "--json", UNLEARN_DATA="digits", UNLEARN_FORGET="3,8")
    assert json.loads(result.stdout)["forget"] == [3, 8]


def test_training_then_importing_what_is_no_state_dict(tmp_path: Path) -> None:
    out = tmp_path / "teacher.safetensors"
    trained = unlearn("train", "--arch", "lenet5", "--width", "0.5", "--data", "digits", "--epochs", "1", "--out", out)
    assert "test accuracy" in trained.stdout
    before = out.read_bytes()
    again = unlearn("train", "--arch", "lenet5", "--data", "digits", "--out", out)
    assert "exists already: replace it with --overwrite" in refused(again, 2)
    assert out.read_bytes() == before
    assert "is a folder" in refused(unlearn("train", "--arch", "lenet5", "--data", "digits", "--out", tmp_path), 2)
    shape = ["--input-shape", "1,28,28", "--classes", "10", "--mean", "0", "--std", "1"]
    result = unlearn("import", out, "--arch", "lenet5", *shape, "--out", tmp_path / "x")
    refused(result, 1)
