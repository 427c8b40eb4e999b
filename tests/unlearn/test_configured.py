"""`unlearn METHOD --config settings.json` repeats a run."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import SETTINGS, STUDENT, save_checkpoint
from tests.runs import digits_card
from unlearn.commands.main import main


def unlearn(*arguments: object) -> str:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "options",
    [
        ["distill", "--steps", 6, "--batch-size", 16, "--forget", "0,3", "--temperature", 2],
        ["edit", "--kind", "masked-logit", "--forget", 0],
        ["gkt", "--preset", "tuned", "--rounds", 2, "--forget", 3, "--every", 1, "--seed", 4],
    ],
    ids=lambda options: options[0],
)
def test_a_run_is_repeated_from_its_settings(
    options: list[object], tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    method = options[0]
    inputs = ["--shards", tiny_run, *([] if method == "distill" else ["--teacher", tiny_teacher_path])]
    unlearn(*options, *inputs, "--out", tmp_path / "first")
    unlearn(method, "--config", tmp_path / "first" / SETTINGS, "--out", tmp_path / "second")
    students = [(tmp_path / name / STUDENT).read_bytes() for name in ("first", "second")]
    assert students[0] == students[1]


def test_settings_that_differ_from_those_of_fine_tuning_are_kept(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    """A student from public weights has other defaults: a value that is the usual default has to be said."""
    public = tmp_path / "public.safetensors"
    save_checkpoint(Classifier.untrained(digits_card(), 7), public)
    options = ["--steps", 3, "--optimiser", "sgd", "--lr", 0.1, "--batch-size", 128, "--weight-decay", 5e-4]
    unlearn("distill", "--shards", tiny_run, "--forget", 0, "--start-from", public, *options, "--out", tmp_path / "a")
    unlearn("distill", "--config", tmp_path / "a" / SETTINGS, "--out", tmp_path / "b")
    assert [(tmp_path / n / STUDENT).read_bytes() for n in "a"] == [(tmp_path / n / STUDENT).read_bytes() for n in "b"]
    settings = [json.loads((tmp_path / name / SETTINGS).read_text()) for name in "ab"]
    assert (settings[0]["optimiser"], settings[0]["lr"]) == ("sgd", 0.1)
    assert settings[0] == settings[1]


def test_settings_of_another_method_are_refused(tiny_teacher_path: Path, tmp_path: Path) -> None:
    unlearn("edit", "--kind", "masked-logit", "--teacher", tiny_teacher_path, "--forget", 0, "--out", tmp_path / "run")
    done = CliRunner().invoke(
        main, ["gkt", "--config", str(tmp_path / "run" / SETTINGS), "--out", str(tmp_path / "gkt")]
    )
    assert done.exit_code == 2
    assert "was written by 'edit', not by 'gkt': use it with edit" in done.stderr


def test_a_run_is_repeated_from_another_working_folder(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_run.parent)
    unlearn("distill", "--shards", tiny_run.name, "--steps", 3, "--forget", 0, "--out", tmp_path / "first")
    monkeypatch.chdir(tmp_path)
    unlearn("distill", "--config", tmp_path / "first" / SETTINGS, "--out", tmp_path / "second")
    students = [(tmp_path / name / STUDENT).read_bytes() for name in ("first", "second")]
    assert students[0] == students[1]
