"""A user's own code runs only if the user names it: neither shards nor a report can choose code."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import STUDENT, save_checkpoint
from synth.shards.index import INDEX, read_index
from synth.shards.store import Folder
from tests.runs import digits_card
from unlearn.commands.main import main
from unlearn.data import DataSource
from unlearn.evaluation import evaluate
from unlearn.methods.distill import LOOP
from unlearn.methods.distill_settings import DistillSettings
from unlearn.report.replay.remake import remake
from unlearn.run.carry_out import Request, unlearn

SETTINGS = DistillSettings(steps=2, batch_size=8)
MODULE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
import torch
def net(in_channels, num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(in_channels * 28 * 28, num_classes))
"""


def quiet(line: str) -> None:
    pass


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """`module:function` of a network; the file `ran` appears beside the module when it is imported."""
    module = f"net_of_{request.node.name.split('[')[0]}"
    (tmp_path / f"{module}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"{module}:net"


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path, code: str) -> Path:
    """Shards whose teacher has the code as its architecture."""
    run = shutil.copytree(tiny_run, tmp_path / "shards")
    index = read_index(Folder(run))
    card = dataclasses.replace(index.card, architecture=code, width=1.0)
    (run / INDEX).write_bytes(dataclasses.replace(index, card=card).to_bytes())
    return run


def distill(run: Path, out: Path, architecture: str | None) -> None:
    request = Request(
        method="distill",
        settings=SETTINGS,
        loop=LOOP,
        shards=str(run),
        forget=(0,),
        out=out,
        student_arch=architecture,
    )
    unlearn(request, quiet)


def test_shards_choose_no_code_unless_the_user_names_it(run: Path, tmp_path: Path, code: str) -> None:
    with pytest.raises(UserError, match=rf"shards asks to run the code {code}: .* give --student-arch {code}"):
        distill(run, tmp_path / "student", None)
    assert not (tmp_path / "student").exists()
    distill(run, tmp_path / "other", "lenet5")
    assert not (tmp_path / "ran").exists()
    distill(run, tmp_path / "student", code)
    assert (tmp_path / "student" / STUDENT).exists()


@pytest.mark.parametrize("method", ["distill", "gkt"])
def test_a_report_chooses_no_code(run: Path, tmp_path: Path, code: str, method: str) -> None:
    settings = {"method": method, "forget": [0], "student_arch": code, "steps": 2, "batch_size": 8}
    record: dict[str, Any] = {
        "origin": {"run": {"settings": settings, "provenance": {"shards": str(run)}}},
        "models": {"student": {"architecture": "lenet5", "width": 1.0, "sha256": ""}},
    }
    for other in (None, "torch.nn:Linear"):
        with pytest.raises(UserError, match=f"the report asks to run the code {code}: .* give --arch {code}"):
            remake(record, tmp_path / "again", tmp_path / "none", [], other, quiet)
    assert not (tmp_path / "ran").exists()


def test_a_student_of_code_that_the_user_names_is_made_again(run: Path, tmp_path: Path, code: str) -> None:
    distill(run, tmp_path / "student", code)
    settings = {"method": "distill", "forget": [0], "student_arch": code, **dataclasses.asdict(SETTINGS)}
    record: dict[str, Any] = {
        "origin": {"run": {"settings": settings, "provenance": {"shards": str(run)}}},
        "models": {"student": {"architecture": code, "width": 1.0, "sha256": ""}},
    }
    again, _ = remake(record, tmp_path / "again", tmp_path / "none", [str(run)], code, quiet)
    assert again.read_bytes() == (tmp_path / "student" / STUDENT).read_bytes()


@pytest.mark.parametrize("method", ["distill", "emmn"])
def test_a_student_of_ones_own_code_can_be_swept(run: Path, tmp_path: Path, code: str, method: str) -> None:
    teacher = tmp_path / "teacher.safetensors"
    save_checkpoint(Classifier.untrained(digits_card(architecture=code, width=1.0), 0), teacher)
    command = ["sweep", "--method", method, "--data", "digits", "--forget", "0", "--out", str(tmp_path / "out")]
    own = {
        "distill": ["--over", "steps=2,3", "--shards", str(run), f"--student-arch={code}"],
        "emmn": ["--over", "noise-steps=1,2", "--teacher", str(teacher), "--arch", code, "--batch-size", "8"],
    }
    done = CliRunner().invoke(main, [*command, "--threads", "1", *own[method]])
    assert done.exit_code == 0, done.output
    assert "sweep.csv" in done.output


def test_models_with_different_code_are_evaluated_together(tmp_path: Path, code: str) -> None:
    card = digits_card(architecture=code, width=1.0)
    paths = {"original": tmp_path / "a", "unlearned": tmp_path / "b"}
    for path, architecture in zip(paths.values(), (code, "tests.runs:bare"), strict=True):
        save_checkpoint(Classifier.untrained(dataclasses.replace(card, architecture=architecture), 0), path)
    source = DataSource("digits", None, False, 32)
    with pytest.raises(UserError, match="asks to run the code tests"):
        evaluate(paths, source, (0,), code, "cpu")
    assert set(evaluate(paths, source, (0,), f"{code},tests.runs:bare", "cpu")[0]) == set(paths)
