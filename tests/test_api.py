"""The commands from Python: the same defaults, checks and results."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

import synth
import unlearn
from synth.basics.errors import UsageError
from synth.commands.calling import parameters
from synth.commands.main import generate as generate_command
from tests.runs import digests
from unlearn.commands import auditing, models
from unlearn.commands.unlearning import COMMANDS

CALLS: list[tuple[Callable[..., Any], click.Command]] = [
    (synth.generate, generate_command),
    (unlearn.import_checkpoint, models.import_),
    (unlearn.train, models.train),
    (unlearn.distill, COMMANDS["distill"]),
    (unlearn.evaluate, models.evaluate),
    (unlearn.audit, auditing.audit),
]


@pytest.mark.parametrize(("call", "command"), CALLS, ids=lambda part: getattr(part, "name", ""))
def test_a_call_has_the_defaults_of_its_command(call: Callable[..., Any], command: click.Command) -> None:
    options = {param.name: param for param in command.params}
    context = click.Context(command)
    for name, parameter in inspect.signature(call).parameters.items():
        if name == "say" or parameter.kind is parameter.VAR_KEYWORD or parameter.default is parameter.empty:
            continue
        usual = options[name].get_default(context)
        if isinstance(usual, str | int | float | tuple):  # otherwise the command has no default
            assert parameter.default == usual, name
        else:
            assert parameter.default in (None, ()), name


def test_a_run_and_a_student_from_python_have_the_bytes_of_the_commands(
    tiny_teacher_path: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    asked = {"per_class": 3, "preset": "quick", "steps": 2, "shard_size": 10, "address": "none", "say": lines.append}
    index = synth.generate(tiny_teacher_path, tmp_path / "python", **asked)
    assert (index.complete, index.samples) == (True, 30)
    assert "is complete" in lines[-1]
    student = unlearn.distill(tmp_path / "python", 0, tmp_path / "student", steps=3, device="cpu", say=lines.append)
    assert student == tmp_path / "student" / "student.safetensors"

    request = ["--teacher", tiny_teacher_path, "--per-class", 3, "--preset", "quick", "--steps", 2, "--shard-size", 10]
    generate = [*request, "--address", "none", "--out", tmp_path / "command"]
    generate_command.main(list(map(str, generate)), standalone_mode=False)
    assert digests(tmp_path / "python") == digests(tmp_path / "command")
    distill = ["--shards", tmp_path / "command", "--forget", 0, "--steps", 3, "--device", "cpu"]
    command = [*distill, "--out", tmp_path / "other"]
    COMMANDS["distill"].main(list(map(str, command)), standalone_mode=False)
    assert student.read_bytes() == (tmp_path / "other" / student.name).read_bytes()


def test_an_evaluation_is_numbers_and_prints_as_tables(tiny_teacher_path: Path) -> None:
    result = unlearn.evaluate(tiny_teacher_path, "digits", forget=[3, 8])
    assert result.forget == (3, 8)
    (evaluation,) = result.models.values()
    assert f"{evaluation.retain:.2f}" in str(result)


def test_an_audit_returns_the_record_of_its_folder(tiny_teacher_path: Path, tmp_path: Path) -> None:
    record = unlearn.audit(
        tiny_teacher_path,
        tiny_teacher_path,
        0,
        tmp_path / "audit",
        say=lambda line: None,
        inversion_steps=1,
        inversion_images=2,
        repeats=2,
        draws=2,
        random_models=1,
    )
    assert record == json.loads((tmp_path / "audit" / "audit.json").read_text())


def test_a_call_prints_nothing_if_its_lines_go_elsewhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, split in enumerate(("train", "test")):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (200 * number, 100, 0)).save(tmp_path / "photos" / split / name / "a.png")
            Image.new("RGB", (8, 8), (0, 100, 200 * number)).save(tmp_path / "photos" / split / name / "b.png")
    lines: list[str] = []
    options = {"width": 0.25, "epochs": 1, "batch_size": 2, "device": "cpu", "say": lines.append}
    unlearn.train("lenet5", tmp_path / "photos", tmp_path / "model.safetensors", **options)
    assert any(line.startswith("read 4 images of 2 classes") for line in lines)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: synth.generate(per_class=1, steps=0), "steps must be 1 or more, not 0"),
        (lambda: synth.generate(per_class=1, stesp=3), "generate has no option stesp: it has "),
        (lambda: synth.generate(per_class="many"), "Invalid value for '--per-class'"),
        (lambda: synth.generate(per_class=1, preset="odd"), "'odd' is not one of 'tuned'"),
        (lambda: unlearn.train("lenet5", "digits", "out", epochs=0), "epochs must be 1 or more, not 0"),
        (lambda: unlearn.unlearn("magic", 0, "out"), "there is no method magic: it is one of distill, gkt"),
    ],
)
def test_a_wrong_request_is_one_error(call: Callable[[], Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        call()


def test_the_environment_sets_no_option_of_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_SEED", "7")
    assert parameters(generate_command, {"per_class": 1})["seed"] == 0


@pytest.mark.parametrize("package", ["synth", "unlearn"])
def test_a_package_loads_nothing_until_a_call_is_used(package: str) -> None:
    code = f"import sys, {package}; dir({package}); assert not {{'torch', 'click', 'ray'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
