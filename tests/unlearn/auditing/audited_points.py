"""Small models of digits that learnt single points or not, and one audit of them that many tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from synth.checkpoint.file import load_checkpoint, save_checkpoint
from synth.shards.plan import Plan
from tests.runs import make_run, recipe_for
from unlearn.auditing.points.audit_points import PointsRequest, audit_points
from unlearn.data import DataSource
from unlearn.drawn_points import draw_points, write_points
from unlearn.methods.distill import LOOP
from unlearn.methods.distill_settings import DistillSettings
from unlearn.points import leave_out, load_points, put_in
from unlearn.run import carry_out as runs
from unlearn.training import TrainSettings, train_classifier

REFERENCES = 3


def quietly(line: str) -> None:
    """For lines that a test does not look at."""


@pytest.fixture(scope="session")
def point_models(tmp_path_factory: pytest.TempPathFactory, _quiet_machine: None) -> Path:
    """A folder with 20 points, half of them with wrong labels, an original that learnt them from 300 digits, and four
    models that never saw them.
    """
    folder = tmp_path_factory.mktemp("points")
    data = DataSource("digits").load("train").select(slice(300))
    write_points(*draw_points(data, 20, 0.5, seed=0), folder / "points")
    points = load_points(folder / "points", (1, 28, 28), data.class_names)
    settings = TrainSettings(epochs=16, batch_size=32, lr=0.05, weight_decay=0.0)
    with_points, without_points = put_in(data, points, quietly), leave_out(data, points, quietly)
    for name, (images, facts), seed in (
        ("original", with_points, 0),
        *((f"retrained-{seed}", without_points, seed) for seed in range(REFERENCES + 1)),
    ):
        model = train_classifier(images, "lenet5", settings, width=0.5, seed=seed, points=facts)
        save_checkpoint(model, folder / f"{name}.safetensors")
    return folder


def points_request(point_models: Path, student: str | Path, out: Path, **changes: Any) -> PointsRequest:
    """`student` is a run's folder, or the name of one of the models."""
    options: dict[str, Any] = {
        "student": student if isinstance(student, Path) else point_models / f"{student}.safetensors",
        "teacher": point_models / "original.safetensors",
        "points": point_models / "points",
        "references": [point_models / f"retrained-{number}.safetensors" for number in range(REFERENCES)],
        "data": DataSource("digits"),
        "out": out,
    }
    return PointsRequest(**{**options, **changes})


@pytest.fixture(scope="session")
def points_audited(point_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an audit of a student that forgot the points: it was distilled from a few images for a moment."""
    folder = tmp_path_factory.mktemp("points-audited")
    recipe = recipe_for(load_checkpoint(point_models / "original.safetensors"))
    make_run(folder / "shards", recipe, Plan(classes=tuple(range(10)), per_class=8, shard_size=80))
    runs.unlearn(
        runs.Request(
            method="distill",
            settings=DistillSettings(steps=20, batch_size=16),
            loop=LOOP,
            shards=str(folder / "shards"),
            forget=(),
            forget_points=point_models / "points",
            out=folder / "run",
        ),
        quietly,
    )
    audit_points(points_request(point_models, folder / "run", folder / "audit"), quietly)
    return folder / "audit"
