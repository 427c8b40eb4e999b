"""Wrong requests: the error is one line that says what to do, and no folder is left half-written."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import STUDENT, save_checkpoint
from tests.runs import digits_card
from unlearn.commands.main import main
from unlearn.methods import gkt
from unlearn.methods.gkt import GKTSettings
from unlearn.run import carry_out as runs
from unlearn.run.folder import PROVENANCE
from unlearn.settings import LoopSettings

QUICK = ("--rounds", 8, "--student-steps", 1, "--batch-size", 8, "--z", 8, "--channels", 2, "--every", 2)
SETTINGS = GKTSettings(rounds=8, student_steps=1, batch_size=8, z=8, channels=2, attention=0.0, mask=True, gate=1.0)


def asked(teacher: Path, shards: Path, out: Path, *options: object) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of `unlearn gkt`."""
    given = ["gkt", "--teacher", teacher, "--shards", shards, "--forget", "0", "--out", out, "--threads", 1]
    result = CliRunner().invoke(main, list(map(str, [*given, "--device", "cpu", *QUICK, *options])))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (
            ["--attention-layers", "conv9"],
            2,
            "has no layer 'conv9' with maps to compare: it has features.0, features.1",
        ),
        (["--attention-layers", "features.2=features.6"], 2, "name layers of one size"),
        (["--gate", "0"], 2, "gate must be above 0 and at most 1"),
        (["--mask", "--post-filter"], 2, "exclude each other"),
        (["--student-arch", "lenet6"], 2, "unknown architecture 'lenet6'"),
        (["--arch", "a:b"], 2, "--arch has no effect, because no network here is of your own code (the teacher is"),
        (["--student-arch", "tests.runs:for_32"], 2, "does not accept images [1, 28, 28]"),
        (["--teacher", "nowhere.safetensors"], 1, "nowhere.safetensors"),
        (["--attention", "0", "--attention-layers", "conv9"], 2, "--attention-layers has no effect without attention"),
        (["--preset", "tuned", "--attention-layers", "features.2"], 2, "has no effect without attention"),
        (["--post-filter-threshold", "0.1"], 2, "--post-filter-threshold has no effect without --post-filter"),
        (["--holdout", "2"], 2, "holdout must be above 0 and below 1"),
        (["--schedule", "plateau", "--no-monitor"], 2, "needs the synthetic hold-out: name shards with --shards"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path, options: list[object], code: int, words: str
) -> None:
    exit_code, _, error = asked(tiny_teacher_path, tiny_run, tmp_path / "run", *options)
    assert exit_code == code, error
    assert error.startswith("error: ")
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_distilled_student_for_other_images_is_refused_before_the_folder_is_claimed(
    tiny_run: Path, tmp_path: Path
) -> None:
    options = ["--shards", tiny_run, "--forget", 0, "--out", tmp_path / "run", "--student-arch", "tests.runs:for_32"]
    result = CliRunner().invoke(main, ["distill", *map(str, options), "--threads", "1"])
    assert result.exit_code == 2
    assert "does not accept images [1, 28, 28]" in result.stderr
    assert result.stderr.rstrip().endswith("choose another --student-arch")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["gkt", "adaptive"])
def test_a_teacher_that_cannot_take_its_own_images_is_refused(tmp_path: Path, method: str) -> None:
    card = digits_card(architecture="tests.runs:for_32", width=1.0)
    save_checkpoint(Classifier.untrained(card, 0), tmp_path / "t.safetensors")
    options = ["--teacher", tmp_path / "t.safetensors", "--arch", "tests.runs:for_32", "--forget", 0, "--threads", 1]
    result = CliRunner().invoke(main, list(map(str, [method, *options, "--out", tmp_path / "run"])))
    assert (result.exit_code, "import it again with the --input-shape" in result.stderr) == (2, True), result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ispf", ("--attention-layers", "features.2")),
        ("ispf", ("--no-post-filter", "--post-filter-threshold", 0.3)),
        ("gkt", ("--bn-loss", "normalised")),
        ("distill", ("--answer-weight", 8)),
    ],
)
def test_a_setting_without_effect_is_refused(
    method: str, options: tuple[object, ...], tiny_teacher_path: Path, tmp_path: Path
) -> None:
    inputs = ["--shards" if method == "distill" else "--teacher", tiny_teacher_path]
    words = [method, *inputs, "--forget", 0, *options, "--out", tmp_path / "run"]
    done = CliRunner().invoke(main, list(map(str, words)))
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "has no effect without" in done.stderr


@pytest.mark.parametrize("option", ["--steps", "--lr", "--batch-size", "--shift"])
def test_a_masked_logit_has_no_training_options(tiny_teacher_path: Path, tmp_path: Path, option: str) -> None:
    command = [
        "edit",
        "--kind",
        "masked-logit",
        "--teacher",
        tiny_teacher_path,
        "--forget",
        0,
        "--out",
        tmp_path / "run",
    ]
    done = CliRunner().invoke(main, list(map(str, [*command, option, 2])))
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"{option} has no effect with --kind masked-logit" in done.stderr
    assert not (tmp_path / "run").exists()
    assert CliRunner().invoke(main, list(map(str, command))).exit_code == 0


def test_shards_that_are_not_read_are_reported(tiny_teacher_path: Path, tmp_path: Path) -> None:
    options = ["--no-monitor", "--attention", 0, "--gate", 1]
    code, said, error = asked(tiny_teacher_path, tmp_path / "nowhere", tmp_path / "run", *options)
    assert code == 0, error
    assert "nowhere is not read: gkt learns from no shards here, and watches no class" in said


@pytest.mark.parametrize("closes", [0, 2])
def test_a_gate_that_nothing_passes_ends_the_run_with_the_last_good_student(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closes: int
) -> None:
    step = gkt.GKT.step

    def closing(self: gkt.GKT, number: int) -> dict[str, Any]:
        if number == closes:
            self.settings = dataclasses.replace(self.settings, gate=1e-9)
        return step(self, number)

    monkeypatch.setattr(gkt.GKT, "step", closing)
    options = ["--gate", "1", "--empty-batches", 2, "--attention", 0, "--every", 1]
    code, said, error = asked(tiny_teacher_path, tiny_run, tmp_path / "run", *options)
    assert code == 1
    for which in ("earlier", "first"):
        restored = f"the {which} generator is restored (raise --gate if this happens again)"
        assert f"no image passed the gate for 2 batches: {restored}" in said
    cause = "error: no image passed the gate for 2 batches, even after an earlier and the first generator were restored"
    assert f"{cause}: raise --gate; " in error
    assert (tmp_path / "run" / STUDENT).exists() == bool(closes)
    assert ("there is no student to keep" in error) == (not closes)


def test_a_generator_that_diverges_leaves_the_last_good_student(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = gkt.GKT.step

    def spoiled(self: gkt.GKT, number: int) -> dict[str, Any]:
        if number == 5:
            next(self.generator.parameters()).data.fill_(math.nan)
        return step(self, number)

    monkeypatch.setattr(gkt.GKT, "step", spoiled)
    request = runs.Request(
        method="gkt",
        settings=SETTINGS,
        loop=LoopSettings(every=2, forget_bound=99.0),
        teacher=tiny_teacher_path,
        shards=str(tiny_run),
        forget=(0,),
        out=tmp_path / "run",
    )
    with pytest.raises(
        UserError, match=r"diverged by step 6 .*; .*student.safetensors is the last good student, of step"
    ):
        runs.unlearn(request, lambda line: None)
    facts = json.loads((tmp_path / "run" / PROVENANCE).read_text())
    assert facts["ended"].startswith("the training diverged by step 6")
    assert facts["student_step"] <= 4
    assert all(value.isfinite().all() for value in load_file(tmp_path / "run" / STUDENT).values())
    again = dataclasses.replace(request, resume=True)  # a run that broke off is complete: it would break off again
    said: list[str] = []
    runs.unlearn(again, said.append)
    assert said[-1].endswith("is complete already")
