"""The warning where a student has lost the retain classes as well."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from synth.checkpoint.classifier import Classifier
from tests.unlearn.shards import stream_of
from unlearn.methods import losses
from unlearn.methods.distill import LOOP
from unlearn.methods.distill_settings import DistillSettings
from unlearn.methods.edit import BaselineSettings
from unlearn.run.carry_out import Request, unlearn
from unlearn.run.folder import PROVENANCE
from unlearn.run.lost_classes import Retained, retained, warning
from unlearn.settings import LoopSettings


@pytest.mark.parametrize(("lr", "lost"), [(None, False), (3.0, True)])
def test_a_run_warns_by_numbers_where_retain_accuracy_collapses(
    lr: float | None, lost: bool, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    settings = BaselineSettings(kind="soft-finetune", steps=6, batch_size=16, lr=lr)
    loop, said = LoopSettings(every=3, holdout=0.3, forget_bound=99.0), []
    request = Request(
        method="edit",
        settings=settings,
        loop=loop,
        teacher=tiny_teacher_path,
        shards=str(tiny_run),
        forget=(3,),
        out=tmp_path / "run",
    )
    unlearn(request, said.append)
    assert any("warning: this student has lost the other classes as well" in line for line in said) == lost
    kept = json.loads((tmp_path / "run" / PROVENANCE).read_text())["retained"]
    assert (kept["percent"] < 75) == lost
    assert kept["where"] == "the synthetic hold-out"


def test_a_student_without_a_monitor_is_measured_on_its_training_images(tiny_run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    settings = DistillSettings(steps=1, batch_size=16)
    request = Request(
        method="distill", settings=settings, loop=LOOP, shards=str(tiny_run), forget=(3,), out=tmp_path / "run"
    )
    unlearn(request, said.append)
    assert any("of views of its own training images it calls" in line for line in said)


def test_only_images_of_the_retain_classes_count(tiny_run: Path, tiny_teacher: Classifier) -> None:
    found = retained(tiny_teacher, (3, 8), None, stream_of(tiny_run))
    assert found is not None
    assert 0 < found.images < 500
    assert found.percent > 90
    assert warning(found) is None
    assert warning(Retained(29.04, 200, "the synthetic hold-out")) is not None
    assert retained(tiny_teacher, (3,), None, None) is None


def test_images_of_which_the_teacher_is_unsure_do_not_count(tiny_run: Path, tiny_teacher: Classifier) -> None:
    stream = stream_of(tiny_run)
    batch = stream.next(500)
    unclear = torch.arange(len(batch)) % 2 == 0  # as images of few steps: the teacher does not call them by their class
    logits = torch.where(unclear[:, None], torch.zeros_like(batch.logits), 10 * batch.logits)
    labels = torch.where(unclear, (batch.labels + 1) % 10, batch.labels)
    stream.next = lambda count: replace(batch, logits=logits, labels=labels)  # type: ignore[method-assign]
    found = retained(tiny_teacher, (3,), None, stream)
    assert found is not None
    assert found.percent > 90


def test_every_image_keeps_what_the_teacher_says_beside_the_class(
    tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    divergence = losses.divergence
    monkeypatch.setattr(
        losses, "divergence", lambda targets, logits: seen.append(targets) or divergence(targets, logits)
    )
    unlearn(
        Request(
            method="edit",
            settings=BaselineSettings(kind="soft-finetune", steps=4, batch_size=16),
            loop=LoopSettings(monitor=False),
            teacher=tiny_teacher_path,
            shards=str(tiny_run),
            forget=(3,),
            out=tmp_path / "run",
        ),
        lambda line: None,
    )
    targets = torch.cat(seen)
    assert len(targets) == 64
    assert not targets[:, 3].any()
    assert (targets.max(1).values < 0.999).any()  # soft, not hard
    assert torch.allclose(targets.sum(1), torch.ones(64))
