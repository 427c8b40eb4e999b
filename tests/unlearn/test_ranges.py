"""Forgetting a range of a regressor's target, from training to evaluation, on rotated digits."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from synth.checkpoint.classifier import predict
from synth.checkpoint.file import load_checkpoint
from synth.checkpoint.layers import last_layer
from synth.checkpoint.range_choice import words_for
from synth.checkpoint.target import Bins, Target
from synth.commands.main import main as synth
from tests.unlearn.shards import stream_of
from unlearn import data_sets
from unlearn.commands.main import main as unlearn
from unlearn.data_sets.reading.rotated import turned
from unlearn.exporting.units import in_units
from unlearn.methods import edit
from unlearn.methods.method import Inputs
from unlearn.samples.filters import ForgetShareBelow, View
from unlearn.samples.logits import forget_share

SMALL = ("--arch", "lenet5", "--width", 0.5, "--data", "rotated-digits", "--threads", 1, "--device", "cpu")
TRAINED = (*SMALL, "--task", "regression", "--bins", 12, "--lr", 0.05)


def done(command: object, *words: object) -> str:
    result = CliRunner().invoke(command, list(map(str, words)))  # type: ignore[arg-type]
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(*words: object) -> str:
    result = CliRunner().invoke(unlearn, list(map(str, words)))
    assert result.exit_code in (1, 2)
    assert len(result.stderr.strip().splitlines()) >= 1
    return result.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranges")


@pytest.fixture(scope="module")
def teachers(place: Path) -> dict[str, Path]:
    """A briefly trained regressor of either head."""
    for head in ("bins", "gaussian"):
        done(unlearn, "train", *TRAINED, "--head", head, "--epochs", 4, "--out", place / f"{head}.safetensors")
    return {head: place / f"{head}.safetensors" for head in ("bins", "gaussian")}


@pytest.fixture(scope="module")
def shards(teachers: dict[str, Path], place: Path) -> dict[str, Path]:
    quick = ("--per-bin", 4, "--steps", 10, "--views", 2, "--address", "none", "--device", "cpu")
    for head, teacher in teachers.items():
        done(synth, "generate", "--teacher", teacher, *quick, "--out", place / f"shards-{head}")
    return {head: place / f"shards-{head}" for head in teachers}


def test_digits_are_turned_counterclockwise() -> None:
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[0, 0, 4, 7] = 255  # to the right
    assert turned(image, torch.tensor([90.0]))[0, 0, 1, 4] == 255  # at the top
    found = data_sets.find("rotated-digits")
    assert found
    _, angles, _ = found.load("test", Path(), False)
    assert (angles.shape, angles.dtype) == ((450,), torch.float32)
    assert 0 <= angles.min() < 5
    assert 175 < angles.max() <= 180


def test_a_regressor_forgets_points_without_a_range(
    teachers: dict[str, Path], shards: dict[str, Path], place: Path
) -> None:
    points = place / "points"
    points.mkdir()
    Image.fromarray(np.full((28, 28), 90, dtype=np.uint8)).save(points / "0.png")
    both = ("distill", "--shards", shards["bins"], "--teacher", teachers["bins"], "--forget-points", points)
    quick = ("--steps", 5, "--batch-size", 16, "--device", "cpu")
    said = done(unlearn, *both, *quick, "--out", place / "without-points")
    assert "forgets 1 point" in said
    assert "--gate" not in said
    line = "--answer-points is for classes, and this teacher predicts a number: leave it out"
    assert line in refused(*both, *quick, "--answer-points", "--out", place / "answered")


def test_no_gate_is_said_where_none_is_used(teachers: dict[str, Path], shards: dict[str, Path], place: Path) -> None:
    both = ("distill", "--shards", shards["bins"], "--teacher", teachers["bins"], "--forget-range", "60:90")
    quick = ("--steps", 5, "--batch-size", 16, "--device", "cpu", "--post-filter")
    assert "--gate" not in done(unlearn, *both, *quick, "--out", place / "post-filter")


def test_the_gate_of_a_range_is_the_sum_of_its_masses() -> None:
    logits = torch.tensor([[0.6, 0.2, 0.2], [0.98, 0.015, 0.005], [0.99, 0.005, 0.005]]).log()
    assert forget_share(logits, Bins((1, 2))).tolist() == pytest.approx([0.4, 0.02, 0.01])
    assert forget_share(logits, (1, 2)).tolist() == pytest.approx([0.2, 0.015, 0.005])
    view = View(logits, torch.zeros(3, dtype=torch.long))
    assert ForgetShareBelow(Bins((1, 2)), 0.018)(view).tolist() == [False, False, True]
    assert ForgetShareBelow((1, 2), 0.018)(view).tolist() == [False, True, True]


@pytest.mark.parametrize("head", ["bins", "gaussian"])
def test_a_range_is_forgotten_from_shards_alone(
    head: str, teachers: dict[str, Path], shards: dict[str, Path], place: Path
) -> None:
    run, reference = place / f"student-{head}", place / f"reference-{head}.safetensors"
    given = ("distill", "--shards", shards[head], "--forget-range", "60:90", "--steps", 80, "--threads", 1)
    said = done(unlearn, *given, "--out", run)
    assert "forgets the range 60:90 of angle (degrees)" in said
    assert "--gate is 0.33, twice the range's share" in said
    like = ("--like", teachers[head], "--without-range", "60:90", "--epochs", 1)
    assert "in the range left out" in done(unlearn, "train", *TRAINED[:-4], *like, "--out", reference)
    asked = ("evaluate", run, "--forget-range", "60:90", "--data", "rotated-digits", "--teacher", teachers[head])
    models = json.loads(done(unlearn, *asked, "--json").splitlines()[-1])["models"]
    assert models["student"]["target"]["head"] == head
    page = done(unlearn, *asked, "--reference", reference, "--out", place / "all.csv")
    assert "Wasserstein distance to retrained" in page
    assert len((place / "all.csv").read_text().splitlines()) == 1 + 3 * 450
    student, teacher = (load_checkpoint(path) for path in (run / "student.safetensors", teachers[head]))
    assert student.card.target == teacher.card.target
    if head == "bins":  # after so few steps a Gaussian student has hardly learnt
        assert models["student"]["retain"]["mae"] < 40  # 45 for one that always answers 90
        found = data_sets.find("rotated-digits")
        assert found
        inside = found.load("test", Path(), False)
        images = inside[0][(inside[1] > 60) & (inside[1] < 90)]
        share = [predict(model, images).softmax(1)[:, 4:6].sum(1).mean().item() for model in (teacher, student)]
        assert share[1] < share[0] / 2


@pytest.mark.parametrize("kind", ["gkt", "adaptive", "masked-logit"])
def test_methods_with_the_teacher_forget_a_range(kind: str, teachers: dict[str, Path], place: Path) -> None:
    quick = {
        "gkt": ("gkt", "--preset", "tuned", "--rounds", 1, "--student-steps", 2, "--batch-size", 16),
        "adaptive": ("adaptive", "--rounds", 1, "--per-class", 1, "--synthesis-steps", 2, "--round-steps", 2),
        "masked-logit": ("edit", "--kind", "masked-logit"),
    }[kind]
    teacher = teachers["gaussian"]
    done(unlearn, *quick, "--teacher", teacher, "--forget-range", "60:90", "--threads", 1, "--out", place / kind)
    student = load_checkpoint(place / kind / "student.safetensors")
    if kind == "masked-logit":
        masses = student(torch.rand(8, 1, 28, 28)).softmax(1)
        assert masses[:, 4:6].sum() == 0
        assert student.card.target is not None
        assert student.card.target.clip == (60, 90)


def test_an_exported_students_outputs_are_in_the_targets_unit(teachers: dict[str, Path], place: Path) -> None:
    model, images = load_checkpoint(teachers["gaussian"]), torch.rand(3, 1, 28, 28)
    changed = in_units(model)
    assert changed.card.target is not None
    assert (changed.card.target.offset, changed.card.target.scale) == (0, 1)
    assert torch.allclose(changed(images), model(images), atol=1e-3)
    done(unlearn, "export", teachers["gaussian"], "--out", place / "net.safetensors")
    assert torch.equal(load_file(place / "net.safetensors")["classifier.bias"], last_layer(changed).bias)


QUICK_AUDIT = ("--draws", 2, "--repeats", 2, "--relearn-steps", 2, "--inversion-steps", 2, "--random-models", 1)


def test_an_audit_of_a_range_has_its_measures_and_a_clipped_output(
    teachers: dict[str, Path], shards: dict[str, Path], place: Path
) -> None:
    teacher, out = teachers["gaussian"], place / "audit"
    reference = place / "left-out.safetensors"
    like = ("--like", teacher, "--without-range", "60:90", "--epochs", 1)
    done(unlearn, "train", *TRAINED[:-4], *like, "--out", reference)
    given = ("--teacher", teacher, "--reference", reference, "--shards", shards["gaussian"], "--data", "rotated-digits")
    few = ("--probe-labels", 1, "--relearn-labels", 2, "--inversion-images", 2)
    student = place / "clipped"
    done(unlearn, "edit", "--kind", "masked-logit", "--teacher", teacher, "--forget-range", "60:90", "--out", student)
    said = done(unlearn, "audit", student, *given, "--forget-range", "60:90", *QUICK_AUDIT, *few, "--out", out)
    assert "What is left of the range 60:90 of angle (degrees)?" in said
    assert "the class" not in said
    record = json.loads((out / "audit.json").read_text())
    measured = {m["name"]: m["readings"] for m in record["measurements"]}
    expected = {"hits-retain", "hits-forget", "error-forget", "likelihood-forget", "coverage-retain", "probe-1"}
    expected |= {
        "relearn-2",
        "relearn-retain",
        "relearn-synthetic",
        "membership-forget",
        "resurrection-advantage",
        "js-retrained",
    }
    assert expected <= set(measured)
    assert measured["hits-forget"]["this model"] == measured["hits-forget"]["masked logit"]
    assert measured["error-forget"]["this model"]["mean"] > measured["error-forget"]["original"]["mean"]
    assert measured["relearn-2"]["masked logit"] == measured["relearn-2"]["original"]
    assert {"prediction-distance", "js-retrained"} <= set(measured)
    done(unlearn, "report", out, "-o", place / "report.html")
    page = (place / "report.html").read_text()
    visible = re.sub(r"(?s)<(script|style|pre).*?</\1>", "", page)
    assert "the range 60:90 of angle (degrees)" in visible
    assert "still holds the range" in visible
    assert "the class" not in visible.replace("the classes to forget are the bins", "")
    done(unlearn, "verify", place / "report.html")


def folder_of_targets(folder: Path, broken: str = "") -> Path:
    """24 grey images whose brightness is the target, in a folder with a targets.csv."""
    folder.mkdir()
    lines = ["path,brightness,split"]
    for number in range(24):
        pixels = np.full((8, 8), 10 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{10 * number / 2.4},{'test' if number % 3 == 0 else 'train'}")
    if broken:
        lines.append(f"0.png,{broken},train")
    (folder / "targets.csv").write_text("\n".join(lines))
    return folder


BRIGHTNESS = ("--task", "regression", "--target-name", "brightness", "--target-range", "0:100", "--bins", 10)
OF_FOLDER = ("--arch", "lenet5", "--width", 0.25, "--image-size", 28, "--epochs", 1, "--batch-size", 8)


def test_a_folder_with_a_table_of_targets_trains_a_regressor(tmp_path: Path) -> None:
    data = folder_of_targets(tmp_path / "data")
    out = tmp_path / "t.safetensors"
    said = done(unlearn, "train", *OF_FOLDER, *BRIGHTNESS, "--data", data, "--out", out)
    assert "mean absolute error on test images" in said
    done(unlearn, "evaluate", out, "--forget-range", "0:20", "--data", data)
    assert load_checkpoint(out).card.kind == "regression"


@pytest.mark.parametrize("broken", ["nan", "101", "bright"])
def test_a_target_that_is_no_number_of_the_range_is_refused(broken: str, tmp_path: Path) -> None:
    data = folder_of_targets(tmp_path / "data", broken)
    line = refused("train", *OF_FOLDER, *BRIGHTNESS, "--data", data, "--out", tmp_path / "t.safetensors")
    assert f"(train image 17) is '{broken}', not a number within 0 and 100" in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--forget-range", "60:200"), "is not within the target's (angle in degrees, 0 to 180)"),
        (("--forget-range", "50:85"), "cuts a bin"),
        (("--forget-range", "0:180"), "is all of the target's"),
        (("--forget-range", "0:90", "--forget-range", "90:180"), "every class is to be forgotten"),
    ],
)
def test_a_range_that_cannot_be_forgotten_is_refused_before_any_work(
    words: tuple[str, ...], says: str, shards: dict[str, Path], tmp_path: Path
) -> None:
    assert says in refused("distill", "--shards", shards["bins"], *words, "--out", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_sweep_of_a_regressor_is_refused_before_any_run(
    teachers: dict[str, Path], shards: dict[str, Path], tmp_path: Path
) -> None:
    data = folder_of_targets(tmp_path / "data")
    for inputs in (("--shards", shards["bins"]), ("--shards", shards["bins"], "--teacher", teachers["bins"])):
        words = ("sweep", "--method", "distill", "--over", "steps=2,3", *inputs, "--forget", "0:60", "--data", data)
        line = refused(*words, "--out", tmp_path / "sweep")
        assert "a sweep compares accuracies, and the teacher predicts a number (angle in degrees, 0 to 180)" in line


def test_a_clipped_output_is_clipped_before_its_only_step(teachers: dict[str, Path]) -> None:
    """A run that was killed after its step and goes on has no step left."""
    teacher = load_checkpoint(teachers["bins"])
    method = edit.start(Inputs(teacher, teacher.card, Bins((4, 5)), 0, "cpu"), edit.SETTINGS(kind="masked-logit"))
    assert method.student.card.target is not None
    assert method.student.card.target.clip == (60.0, 90.0)


def test_a_new_last_layer_has_standardised_outputs(teachers: dict[str, Path], shards: dict[str, Path]) -> None:
    teacher = load_checkpoint(teachers["gaussian"])
    target = teacher.card.target
    assert target is not None
    card = replace(teacher.card, target=replace(target, offset=0.0, scale=1.0))  # as an imported network has it
    inputs = Inputs(teacher, card, Bins((4, 5)), 0, "cpu", stream_of(shards["gaussian"]))
    found = edit.start(inputs, edit.SETTINGS(kind="last-layer")).student.card.target
    assert found is not None
    assert (found.offset, found.scale) == (90.0, 18.0)


AGE = Target(name="age", unit="years", low=0.0, high=100.0, bins=10, head="bins")


def test_a_network_of_one_number_has_a_unit_of_at_most_its_spread() -> None:
    def scale(spread: float) -> float:
        return replace(AGE, head="number", spread=spread).standardised.scale

    assert (scale(4.0), scale(25.0)) == (4.0, 10.0)
    assert replace(AGE, head="gaussian").standardised.scale == 10.0


def test_bins_that_make_no_range_are_called_bins() -> None:
    card = SimpleNamespace(class_names=AGE.bin_names, target=AGE)
    assert words_for(Bins((0, 2)), card) == "bins 0 '0 to 10', 2 '20 to 30'"
    assert words_for(Bins((0, 1)), card) == "the range 0:20 of age (years)"


def test_data_of_the_other_task_is_refused(teachers: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    assert "give --task regression" in refused("train", *SMALL, "--out", out)
    model = teachers["bins"]
    line = refused("train", *SMALL, "--task", "regression", "--bins", 9, "--like", model, "--out", out)
    assert "--bins has no effect with --like" in line
    line = refused("evaluate", model, "--forget-range", "60:90", "--data", "digits")
    assert "is a model for regression, and digits is data for classification" in line
