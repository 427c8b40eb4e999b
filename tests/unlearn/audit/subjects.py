"""Small models of digits, with and without class 0, and one small audit that many tests share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from synth.checkpoint.file import save_checkpoint
from unlearn.audit.audit import Request, audit
from unlearn.audit.audit_settings import AuditSettings
from unlearn.data import DataSource, load_images
from unlearn.report.write import write_report
from unlearn.train import TrainSettings, train_classifier

SMALL = AuditSettings(
    repeats=3,
    draws=6,
    pool=60,
    judge_images=30,
    relearn_labels="5,20",
    relearn_steps=12,
    relearn_batch=30,
    relearn_lr=3e-3,
    probe_labels="1,3",
    inversion_steps=8,
    inversion_images=4,
    random_models=1,
)
DIGITS = DataSource("digits", None, False, 32)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, _quiet_machine: None) -> Mapping[str, Path]:
    """Checkpoints: a teacher, and three models retrained without class 0."""
    return train_models(tmp_path_factory.mktemp("models"))


def train_models(folder: Path) -> Mapping[str, Path]:
    """As `models`, in any folder."""
    data, paths = load_images("digits", "train"), {}
    for name, without, seed in (("teacher", (), 0), ("first", (0,), 4), ("second", (0,), 5), ("third", (0,), 6)):
        model = train_classifier(
            data, "lenet5", TrainSettings(epochs=6, batch_size=64), width=0.5, without=without, seed=seed
        )
        paths[name] = folder / f"{name}.safetensors"
        save_checkpoint(model, paths[name])
    return paths


def request_for(models: Mapping[str, Path], student: Path, out: Path, **changes: object) -> Request:
    request = Request(
        student=student,
        teacher=models["teacher"],
        forget=(0,),
        references=(models["second"], models["third"]),
        data=DIGITS,
        out=out,
        settings=SMALL,
        workers=2,
    )
    return dataclasses.replace(request, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def audited(models: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The audit of a model that was retrained, against two others."""
    return audit_of_models(models, tmp_path_factory.mktemp("audits") / "retrained")


def audit_of_models(models: Mapping[str, Path], out: Path) -> Path:
    """As `audited`, in any folder."""
    audit(request_for(models, models["first"], out), lambda line: None)
    return out


@pytest.fixture(scope="session")
def page_path(audited: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of that audit. A test that changes the page copies it first."""
    out = tmp_path_factory.mktemp("pages") / "report.html"
    write_report(audited, out)
    return out
