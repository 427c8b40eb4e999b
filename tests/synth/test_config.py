"""`--config FILE` starts a command from the settings that an earlier one wrote."""

import dataclasses
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import save_checkpoint
from synth.commands.main import options_of_run
from synth.methods.deepinversion_settings import THUMBNAIL_PRESETS
from synth.shards.index import INDEX, read_index
from synth.shards.store import Folder
from tests.runs import digits_card
from tests.synth.conftest import Run


def test_a_run_is_generated_again_from_its_index(run: Run, tiny_teacher_path: Path, tmp_path: Path) -> None:
    fixed = ["--teacher", str(tiny_teacher_path), "--address", "none"]
    first, second, third = (str(tmp_path / name) for name in ("first", "second", "third"))
    given = [
        "--per-class",
        "4",
        "--classes",
        "1-3",
        "--steps",
        "3",
        "--shard-size",
        "7",
        "--views",
        "1",
        "--seed",
        "5",
    ]
    gate = ["--quality-gate", "confidence=0.5,tries=2"]
    assert run("generate", *fixed, *given, *gate, "--out", first)[0] == 0
    assert run("generate", *fixed, "--config", f"{first}/{INDEX}", "--out", second)[0] == 0
    assert run("generate", *fixed, "--config", f"{first}/{INDEX}", "--out", third, "--seed", "6")[0] == 0
    entries = [read_index(Folder(Path(place))).entries for place in (first, second, third)]
    assert entries[0] == entries[1]
    assert entries[0] != entries[2]


def test_numbers_as_class_names_are_no_riddle_for_a_runs_index(run: Run, tmp_path: Path) -> None:
    card = digits_card(class_names=("1", "2", "3", "10"))
    save_checkpoint(Classifier.untrained(card, 0), tmp_path / "t")
    fixed = ["--teacher", str(tmp_path / "t"), "--address", "none"]
    assert (
        run("generate", *fixed, "--per-class=1", "--steps=2", "--classes=name:2,index:3", "--out", tmp_path / "a")[0]
        == 0
    )
    assert run("generate", *fixed, "--config", tmp_path / "a" / INDEX, "--out", tmp_path / "b")[0] == 0
    first, second = (read_index(Folder(tmp_path / name)) for name in "ab")
    assert first.card.plan == second.card.plan
    assert first.card.plan.classes == (1, 3)


def test_a_warm_start_is_made_again_without_a_start_of_its_own() -> None:
    settings = dataclasses.asdict(THUMBNAIL_PRESETS["warm"])
    plan = {"classes": [0, 1], "per_class": 1}
    run = {"plan": plan, "settings": settings, "method": "deepinversion", "image_shape": [3, 32, 32]}
    options = options_of_run({"run": run})
    assert options["warm_start"] is True
    assert "start" not in options


def test_a_run_of_the_format_before_is_refused_with_the_command_that_makes_it_again(
    run: Run, tiny_teacher_path: Path, tmp_path: Path
) -> None:
    fixed = ["--teacher", str(tiny_teacher_path), "--address", "none"]
    old, new = tmp_path / "an old run", tmp_path / "new"
    assert run("generate", *fixed, "--per-class", "1", "--steps", "3", "--views", "1", "--out", old)[0] == 0
    raw = json.loads((old / INDEX).read_text())
    entries = read_index(Folder(old)).entries
    plan = {name: value for name, value in raw["run"]["plan"].items() if name not in ("view_crop", "image_format")}
    raw["format_version"], raw["run"]["plan"] = 1, {**plan, "blends": plan.pop("views")}
    (old / INDEX).write_text(json.dumps(raw))
    code, _, said = run("verify", old)
    assert code == 1
    assert said.startswith(f"error: {old}/{INDEX} has format version 1, which is no longer read: make the run again")
    assert said.count("\n") == 1
    command = shlex.split(said.split("'", 1)[1].rsplit("', where", 1)[0].replace("--out NEW", f"--out {new}"))
    command[command.index("T")] = str(tiny_teacher_path)
    assert run(*command[1:], "--address", "none")[0] == 0
    assert read_index(Folder(new)).entries == entries


def test_the_former_name_of_views_is_refused_with_the_new_one(run: Run) -> None:
    code, _, said = run("generate", "--per-class", "1", "--blends", "3")
    assert (code, said.strip()) == (2, "error: --blends is now --views: give --views 3")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "there is no such file"),
        (lambda path: path.write_text("[1]"), "is not a JSON file of settings"),
        (lambda path: path.write_text("{"), "is not a JSON file of settings"),
        (
            lambda path: path.write_text(json.dumps({"stepz": 1})),
            "has the setting stepz, but synth generate has no option --stepz: name a file that this command wrote",
        ),
        (lambda path: path.write_text(json.dumps({"steps": "many"})), "'many' is not a valid integer"),
        (lambda path: os.mkfifo(path), "it is a pipe, not a file"),
        (lambda path: path.write_text(json.dumps({"run": 5})), "does not hold the settings of this command"),
        (
            lambda path: path.write_text(json.dumps({"run": {"settings": []}})),
            "does not hold the settings of this command",
        ),
        (lambda path: path.write_text(json.dumps({"steps": {}})), "a setting is an object or null"),
        (lambda path: path.write_text(json.dumps({"steps": [1, 2]})), "'1,2' is not a valid integer"),
        (lambda path: path.write_text(json.dumps({"steps": 1e300})), "'1e+300' is not a valid integer"),
        (lambda path: path.write_text(json.dumps({"steps": 10**9})), "steps must be at most 10,000,000"),
        (lambda path: path.write_text(json.dumps({"flip": 5})), "'5' is not a valid boolean"),
        (
            lambda path: path.write_text(json.dumps({"teacher": "a\0b"})),
            "a setting is longer than 4,096 characters, or",
        ),
        (lambda path: path.write_text(json.dumps({"teacher": "a" * 10**6})), "a setting is longer than 4,096"),
        (lambda path: path.write_text(json.dumps({"command": "gkt"})), "was written by 'gkt', not by 'generate'"),
    ],
)
def test_a_file_that_holds_no_settings_is_one_line(
    run: Run, tmp_path: Path, write: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "settings.json"
    write(path)
    code, _, err = run("generate", "--per-class", "1", "--config", str(path))
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
