"""The gate of `distill`: a teacher that gives every class some probability, and what is said of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import SETTINGS, STUDENT, load_checkpoint
from synth.checkpoint.layers import last_layer
from synth.shards.index import read_index
from synth.shards.plan import Plan
from synth.shards.store import Folder
from tests.runs import QUICKEST, make_run, recipe_for
from unlearn.commands.main import main
from unlearn.methods.distill_settings import GATE, PHOTO_GATE, DistillSettings, fill_in, gate_above
from unlearn.samples.floor import forget_floor
from unlearn.samples.runs import Runs


@pytest.fixture(scope="module")
def soft_run(tmp_path_factory: pytest.TempPathFactory, tiny_teacher_path: Path) -> Path:
    """A run of a teacher whose answers are as soft as those of label smoothing."""
    teacher = load_checkpoint(tiny_teacher_path)
    with torch.no_grad():
        layer = last_layer(teacher)
        layer.weight *= 0.45
    path = tmp_path_factory.mktemp("soft") / "run"
    make_run(path, recipe_for(teacher, QUICKEST), Plan(classes=tuple(range(10)), per_class=6, shard_size=60))
    return path


def distilled(shards: Path, out: Path, *options: object) -> tuple[int, str, Path]:
    given = ["distill", "--shards", shards, "--forget", "0", "--out", out, "--steps", 1, "--threads", 1, *options]
    result = CliRunner().invoke(main, list(map(str, given)))
    return result.exit_code, result.output, out


def floor_of(shards: Path) -> float:
    return forget_floor(Runs([Folder(shards)]), (0,))


def test_the_floor_is_what_nine_of_ten_retain_images_reach(soft_run: Path, tiny_run: Path) -> None:
    assert floor_of(tiny_run) < 0.002 < floor_of(soft_run)


def test_an_ordinary_teacher_has_the_papers_gate(tiny_run: Path, tmp_path: Path) -> None:
    code, said, default = distilled(tiny_run, tmp_path / "default")
    assert (code, "--gate" in said) == (0, False), said
    _, _, given = distilled(tiny_run, tmp_path / "given", "--gate", 0.01)
    assert (default / STUDENT).read_bytes() == (given / STUDENT).read_bytes()
    assert json.loads((default / SETTINGS).read_text())["gate"] == GATE == 0.01


def test_a_soft_teacher_has_a_wider_gate_and_is_told_so(soft_run: Path, tmp_path: Path) -> None:
    code, said, out = distilled(soft_run, tmp_path / "run")
    gate = json.loads((out / SETTINGS).read_text())["gate"]
    assert code == 0, said
    assert gate == gate_above(floor_of(soft_run), 10, lambda line: None) > 0.02
    assert f"--gate is {gate:g} instead of 0.01, because the teacher is soft: on 9 of 10 images" in said
    code, said, _ = distilled(soft_run, tmp_path / "again", "--config", out / SETTINGS)
    assert (code, "because the teacher is soft" in said) == (0, False), said


def test_a_resumed_run_keeps_the_gate_that_it_began_with(soft_run: Path, tmp_path: Path) -> None:
    shards = shutil.copytree(soft_run, tmp_path / "shards")
    _, _, out = distilled(shards, tmp_path / "run", "--gate", 0.3)
    for shard in shards.glob("*.tar"):
        shard.unlink()  # a run that is complete is not read again
    code, said, _ = distilled(shards, out, "--resume")
    assert (code, "is complete already" in said) == (0, True), said


def test_a_gate_that_drops_most_retain_samples_is_named_with_the_floor(soft_run: Path, tmp_path: Path) -> None:
    gate = 1.01 * floor_of(soft_run)
    code, said, _ = distilled(soft_run, tmp_path / "run", "--gate", gate)
    assert code == 0, said
    assert f"warning: --gate {gate:g} drops " in said
    assert f"a probability of {floor_of(soft_run):.2g} or more; a larger --gate drops fewer" in said
    code, said, _ = distilled(soft_run, tmp_path / "all", "--gate", 1e-9)
    assert code == 1
    assert "loosen the filter that dropped most of them (--gate, --entropy)" in said
    assert f"a probability of {floor_of(soft_run):.2g} or more\n" in said


def test_the_default_gate_is_bounded_and_leaves_the_other_settings() -> None:
    said: list[str] = []
    assert gate_above(0.0019, 10, said.append) == GATE
    assert said == []
    assert (gate_above(0.0123, 10, said.append), gate_above(0.2, 2, said.append), len(said)) == (0.12, 0.5, 2)


def test_the_gate_is_wider_on_colour_images(tiny_run: Path) -> None:
    grey = read_index(Folder(tiny_run)).card
    colour = dataclasses.replace(grey, image_shape=(3, 28, 28), mean=(0.5,) * 3, std=(0.5,) * 3)
    said: list[str] = []
    gates = [fill_in(DistillSettings(), run, lambda: 0.0, said.append).gate for run in (grey, colour)]
    assert gates == [GATE, PHOTO_GATE]
    assert said == []
    assert fill_in(DistillSettings(), colour, lambda: 0.005, said.append).gate == PHOTO_GATE
    assert said == []
    assert fill_in(DistillSettings(), colour, lambda: 0.02, said.append).gate == 0.2
    assert "--gate is 0.2 instead of 0.1" in said[0]


def test_unclear_images_do_not_make_a_teacher_soft() -> None:
    """A network fine-tuned on hard labels gave such images of five classes a floor of 0.4."""
    said: list[str] = []
    assert gate_above(0.42, 5, said.append) == GATE
    assert said[0].startswith("warning: the images are unclear: on 9 of 10 images")
    assert gate_above(0.025, 5, said.append) == 0.25


def test_settings_without_effect_are_not_given_again(tiny_run: Path, tmp_path: Path, tiny_teacher: Classifier) -> None:
    code, said, out = distilled(tiny_run, tmp_path / "first", "--post-filter")
    assert code == 0, said
    assert json.loads((out / SETTINGS).read_text())["gate"] == GATE
    code, said, again = distilled(tiny_run, tmp_path / "again", "--config", out / SETTINGS)
    assert code == 0, said
    assert (out / STUDENT).read_bytes() == (again / STUDENT).read_bytes()
    run = read_index(Folder(tiny_run)).card
    assert fill_in(DistillSettings(gate=0.3), run, lambda: pytest.fail("measured")).gate == 0.3
