"""Starting from public weights: what a student, a teacher and a reference take over, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from synth.basics.errors import UsageError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import SETTINGS, STUDENT, load_checkpoint, save_checkpoint
from synth.checkpoint.public_start import PublicStart, ancestors
from tests.runs import digits_card
from unlearn.commands.main import main
from unlearn.commands.unlearning import checked_settings
from unlearn.methods.distill import LOOP, PRESETS
from unlearn.run.carry_out import Request, unlearn
from unlearn.run.folder import PROVENANCE
from unlearn.training import FINE_TUNING, TrainSettings

OTHERS = tuple(f"letter {c}" for c in "abcdefg")
QUICK = dataclasses.replace(PRESETS["fine-tuning"], steps=3, batch_size=16)


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of the tiny teacher's architecture, for seven other classes, whose statistics are not the initial."""
    model = Classifier.untrained(digits_card(class_names=OTHERS), 5).train()
    model(torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0)))
    path = tmp_path_factory.mktemp("public") / "public.safetensors"
    save_checkpoint(model.freeze(), path)
    return path


def distilled(run: Path, out: Path, public: Path, **changes: Any) -> Classifier:
    request = Request(
        method="distill", settings=QUICK, loop=LOOP, shards=str(run), forget=(3,), out=out, start_from=public
    )
    unlearn(dataclasses.replace(request, **changes), lambda line: None)
    return load_checkpoint(out / STUDENT)


def statistics(model: Classifier) -> list[torch.Tensor]:
    return [value for name, value in model.net.named_buffers() if "running" in name]


def test_a_student_starts_from_the_public_weights_and_keeps_their_statistics(
    public: Path, tiny_run: Path, tmp_path: Path
) -> None:
    still = dataclasses.replace(QUICK, lr=1e-12)
    student, start = distilled(tiny_run, tmp_path / "run", public, settings=still), load_checkpoint(public)
    ours, theirs = dict(student.net.named_parameters()), dict(start.net.named_parameters())
    head = {name for name in ours if ours[name].shape != theirs[name].shape}
    assert {ours[name].shape[0] for name in head} == {10}
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours.keys() - head)
    assert all(torch.equal(a, b) for a, b in zip(statistics(student), statistics(start), strict=True))
    facts, begun = (json.loads((tmp_path / "run" / name).read_text()) for name in (PROVENANCE, SETTINGS))
    assert facts["start_from_sha256"] == begun["start_from_sha256"] == start.digest
    assert student.card.training["start_from"]["sha256"] == start.digest
    moved = distilled(
        tiny_run, tmp_path / "other", public, settings=dataclasses.replace(QUICK, freeze_batch_norm=False)
    )
    assert any(not torch.equal(a, b) for a, b in zip(statistics(moved), statistics(start), strict=True))


def test_the_command_line_takes_the_settings_of_fine_tuning(public: Path) -> None:
    flags: dict[str, Any] = {"start_from": public, "steps": 7, "follow": False}
    chosen = dataclasses.asdict(checked_settings("distill", flags)[0])
    assert chosen == dataclasses.asdict(dataclasses.replace(PRESETS["fine-tuning"], steps=7))
    for others in ({}, {"keep_layers": "60%"}):  # layers that are new are trained as those of a student from nothing
        new = checked_settings("distill", {**flags, **others, "start_from": None})[0]
        assert (new.optimiser, new.flip, new.batch_size) == ("sgd", None, 128)
    assert checked_settings("distill", {**flags, "keep_layers": "60%"})[0].optimiser == "adamw"


@pytest.mark.parametrize("how", ["itself", "by its card", "by its weights"])
def test_weights_of_the_teacher_are_refused(
    how: str, tiny_teacher: Classifier, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    path, teacher = tmp_path / "start.safetensors", load_checkpoint(tiny_teacher_path)
    training: dict[str, Any] = {"data": "elsewhere"}
    if how == "by its card":
        training = {"start_from": {"sha256": "f" * 64, "ancestors": [teacher.digest]}}
    card = dataclasses.replace(teacher.card, training=training)
    start = Classifier.untrained(card, 1) if how == "by its card" else Classifier(teacher.net, card)
    save_checkpoint(start, path)
    said = {
        "itself": "is the teacher itself",
        "by its card": "descends from",
        "by its weights": "has the teacher's weights",
    }
    asked = {"teacher": tiny_teacher_path} if how == "by its weights" else {}
    with pytest.raises(UsageError, match=said[how]):
        distilled(tiny_run, tmp_path / "run", tiny_teacher_path if how == "itself" else path, **asked)
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_descends_from_the_public_weights_is_the_normal_case(public: Path) -> None:
    start = PublicStart(load_checkpoint(public), "public")
    teacher = start.network(digits_card(training={"start_from": start.facts()}), 0)
    assert ancestors(teacher.card) == {start.model.digest}
    torch.nn.init.ones_(next(teacher.net.parameters()))
    start.refuse_descendant("a" * 64, teacher)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"width": 1.0},
            r"the first layer that differs is \S+, whose weight has shape \[6, 1, 5, 5\], not \[3, 1, 5, 5\]",
        ),
        ({"architecture": "resnet20"}, r"\(resnet20\) does not fit lenet5 for these images: .* has the layer"),
        ({"input_shape": (3, 28, 28), "mean": (0.3,) * 3, "std": (0.3,) * 3}, r"first layer that differs"),
    ],
)
def test_public_weights_of_another_network_are_refused_with_the_first_layer_that_differs(
    change: dict[str, Any], message: str, tiny_run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    save_checkpoint(Classifier.untrained(digits_card(**change), 0), path)
    with pytest.raises(UsageError, match=message):
        distilled(tiny_run, tmp_path / "run", path)


def test_another_normalisation_is_said(public: Path, tiny_run: Path, tmp_path: Path) -> None:
    path, start = tmp_path / "other.safetensors", load_checkpoint(public)
    save_checkpoint(Classifier(start.net, dataclasses.replace(start.card, mean=(0.9,))), path)
    said: list[str] = []
    request = Request(
        method="distill", settings=QUICK, loop=LOOP, shards=str(tiny_run), forget=(3,), out=tmp_path / "run"
    )
    unlearn(dataclasses.replace(request, start_from=path), said.append)
    assert any("has mean 0.9" in line for line in said)


def trained(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["train", *map(str, arguments)])
    return done.output


def test_a_teacher_and_a_reference_start_from_public_weights(public: Path, tmp_path: Path) -> None:
    given = ["--data", "digits", "--epochs", 1, "--batch-size", 400, "--threads", 1, "--start-from", public]
    out, start = tmp_path / "t.safetensors", load_checkpoint(public)
    said = trained(*given, "--out", out)
    assert f"starts from the weights of {public}" in said
    teacher = load_checkpoint(out)
    assert (teacher.card.architecture, teacher.card.width, teacher.card.num_classes) == ("lenet5", 0.5, 10)
    assert (teacher.card.mean, teacher.card.std) == (start.card.mean, start.card.std)
    assert teacher.card.training["start_from"]["sha256"] == start.digest
    assert teacher.card.training["settings"]["optimiser"] == "adamw"
    assert not any(torch.equal(a, b) for a, b in zip(statistics(teacher), statistics(start), strict=True))
    frozen = tmp_path / "frozen.safetensors"
    trained(*given, "--freeze-batch-norm", "--out", frozen)
    kept = statistics(load_checkpoint(frozen))
    assert all(torch.equal(a, b) for a, b in zip(kept, statistics(start), strict=True))
    reference = [*given, "--like", out, "--without", 0, "--out", tmp_path / "r.safetensors"]
    assert "wrote" in trained(*reference)
    again = trained(*given, "--without", 0, "--overwrite", "--out", tmp_path / "r.safetensors", "--start-from", out)
    assert "was trained on digits with the classes to leave out" in again


def test_a_training_names_a_network_or_weights_to_start_from(public: Path, tmp_path: Path) -> None:
    given = ["--data", "digits", "--out", tmp_path / "t.safetensors"]
    assert "--arch is missing" in trained(*given)
    assert "holds lenet5, not resnet20" in trained(*given, "--start-from", public, "--arch", "resnet20")
    assert "--width has no effect with --start-from" in trained(*given, "--start-from", public, "--width", 0.25)
    assert "has no effect without --start-from" in trained(*given, "--arch", "lenet5", "--freeze-batch-norm")
    assert TrainSettings().optimiser == "sgd"
    assert not FINE_TUNING.freeze_batch_norm
