"""Keeping the teacher's layers up to a named one (EU-k)."""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from synth.basics.errors import UsageError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import STUDENT, load_checkpoint
from tests.runs import digits_card
from unlearn.methods.distill import LOOP
from unlearn.methods.distill_settings import DistillSettings
from unlearn.methods.early_layers import keep_layers, layer_at, layers_until
from unlearn.run.carry_out import Request, unlearn
from unlearn.run.sweep import Range, plot, sweep

SETTINGS = DistillSettings(steps=4, batch_size=16, keep_layers="features.5")


def request(run: Path, teacher: Path | None, out: Path, **changes: Any) -> Request:
    asked = Request(
        method="distill", settings=SETTINGS, loop=LOOP, shards=str(run), teacher=teacher, forget=(3,), out=out
    )
    return dataclasses.replace(asked, **changes)


def test_the_layers_up_to_the_named_one_are_the_teachers_and_the_others_are_new(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    unlearn(request(tiny_run, tiny_teacher_path, tmp_path / "run"), lambda line: None)
    student, teacher = load_checkpoint(tmp_path / "run" / STUDENT), load_checkpoint(tiny_teacher_path)
    ours, theirs = student.net.state_dict(), teacher.net.state_dict()
    same = {name for name in ours if torch.equal(ours[name], theirs[name])}
    assert same == {name for name in ours if re.match(r"features\.[015]\.", name)} | {
        name for name in ours if name.startswith("features.4")
    }
    assert student.card.training["settings"]["keep_layers"] == "features.5"
    assert not torch.allclose(ours["features.8.weight"], theirs["features.8.weight"], atol=1e-3)


class Branched(nn.Module):
    """Layers that run in another order than they are registered in, with weights outside of any layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.last = nn.Linear(8, classes)
        self.late = nn.Linear(8, 8)
        self.block = nn.ModuleDict({"main": nn.Linear(8, 8), "unused": nn.Linear(2, 2)})
        self.first = nn.Linear(784, 8)
        self.offset = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)) + self.offset
        return self.last(self.late(self.block["main"](x)))


def test_layers_are_kept_in_the_order_of_the_forward_pass() -> None:
    model = Classifier(Branched(10), digits_card())
    assert layers_until(model, "first") == ["", "first"]
    assert layers_until(model, "block.main") == ["", "block.main", "first"]
    other = Classifier(Branched(10), digits_card())
    frozen = keep_layers(model, other, "block.main")
    assert torch.equal(model.net.state_dict()["offset"], other.net.state_dict()["offset"])
    assert {name for name, value in model.net.named_parameters() if value.requires_grad} == {
        f"{layer}.{part}" for layer in ("late", "last", "block.unused") for part in ("weight", "bias")
    }
    assert frozen == [model.net.block["main"], model.net.first]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"keep_layers": "features.55"},
            r"has no layer 'features.55'; the nearest names are features.5.*: choose one of ",
        ),
        (
            {"keep_layers": "classifier"},
            r"keeps every layer before the last one, .* name an earlier layer, of features.0",
        ),
        ({"keep_layers": "0%"}, r"--keep-layers 0% keeps none or all of the layers: name a share between, such as 60%"),
        ({"keep_layers": "100%"}, r"--keep-layers 100% keeps none or all"),
        ({"keep_layers": "99%"}, r"--keep-layers classifier keeps|keeps every layer before the last one"),
        ({"keep_layers": "60 %"}, r"has no layer '60 %'.* or a share such as 60%"),
        ({"keep_layers": "features.14"}, r"keeps every layer before the last one"),
        ({"keep_layers": "features.0", "freeze_batch_norm": True}, r"has no effect without --start-from"),
        ({"keep_layers": "", "feature_noise": 0.5}, r"--feature-noise has no effect without --keep-layers"),
    ],
)
def test_a_layer_that_is_not_there_or_is_the_last_one_is_refused(
    change: dict[str, Any], message: str, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    asked = request(tiny_run, tiny_teacher_path, tmp_path / "run", settings=dataclasses.replace(SETTINGS, **change))
    with pytest.raises(UsageError, match=message):
        unlearn(asked, lambda line: None)
    assert not (tmp_path / "run").exists()


def test_keeping_layers_needs_the_teacher_and_its_architecture(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="name its checkpoint with --teacher"):
        unlearn(request(tiny_run, None, tmp_path / "run"), lambda line: None)
    with pytest.raises(UsageError, match="copies layers of the teacher, a lenet5, but the student is a resnet20"):
        unlearn(request(tiny_run, tiny_teacher_path, tmp_path / "run", student_arch="resnet20"), lambda line: None)


def test_a_share_names_the_layer_that_ends_there(tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    asked = request(
        tiny_run, tiny_teacher_path, tmp_path / "run", settings=dataclasses.replace(SETTINGS, keep_layers="40%")
    )
    unlearn(asked, said.append)
    assert "--keep-layers 40% keeps the teacher's layers up to features.5" in said
    model = load_checkpoint(tiny_teacher_path)
    assert layer_at(model, "features.1") == "features.1"
    ends = [layers_until(model, layer_at(model, f"{share}%")) for share in range(5, 70, 5)]
    assert all(set(before) <= set(after) for before, after in itertools.pairwise(ends))
    assert len(ends[0]) < len(ends[-1])


def test_a_sweep_goes_over_the_depth(tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path) -> None:
    over = Range.parse("keep-layers=features.0,40%").check("distill", DistillSettings)
    base = request(
        tiny_run, tiny_teacher_path, tmp_path, settings=dataclasses.replace(SETTINGS, keep_layers="", steps=1)
    )
    rows = sweep(over, (0,), base, tmp_path / "sweep", lambda student: (50.0, 1.0), lambda line: None)
    assert [row.value for row in rows] == ["features.0", "40%"]
    assert (tmp_path / "sweep" / "keep-layers-40%" / "seed-0" / STUDENT).exists()
    drawn = plot("keep-layers", [(row.value, row.retain, row.forget) for row in rows])
    assert "features.0" in drawn


def test_a_share_never_ends_between_a_convolution_and_its_batch_norm() -> None:
    model = Classifier.untrained(digits_card(architecture="allcnn", width=0.25), 0)
    modules = dict(model.net.named_modules())
    ends = [modules[layer_at(model, f"{share}%")] for share in range(5, 65, 5)]
    assert {type(end) for end in ends} == {nn.BatchNorm2d, nn.Sequential}  # a convolution, its batch norm and a ReLU
