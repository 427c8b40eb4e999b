"""The filter of single points: what is near one is dropped and counted, in every method that forgets points."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from synth.basics.errors import HopelessError, InterruptedRunError, UsageError
from synth.checkpoint.answers import outputs
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import SETTINGS, STUDENT, load_checkpoint
from tests.unlearn.points import case
from tests.unlearn.shards import images_of, stream_of
from unlearn.commands.main import main
from unlearn.methods.adaptive import AdaptiveSettings
from unlearn.methods.distill import Distillation
from unlearn.methods.distill_settings import DistillSettings
from unlearn.methods.gkt import GKTSettings
from unlearn.run import carry_out as runs
from unlearn.run.folder import POINTS, PROVENANCE
from unlearn.samples import near_points
from unlearn.samples.near_points import FarFromPoints, NearPoints, between_neighbours, key
from unlearn.samples.point_settings import PointSettings
from unlearn.settings import LoopSettings

SETTINGS_OF: dict[str, Any] = {
    "distill": DistillSettings(steps=4, batch_size=16),
    "gkt": GKTSettings(rounds=2, student_steps=1, batch_size=8, z=8, channels=2, attention=0.0, empty_batches=2),
    "adaptive": AdaptiveSettings(rounds=1, round_steps=2, per_class=2, synthesis_steps=1, batch_size=16),
}
METHODS = pytest.mark.parametrize("method", SETTINGS_OF)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> Path:
    """Two points, which are the run's images 3 and 40."""
    folder = tmp_path_factory.mktemp("points")
    images = images_of(tiny_run).images
    for number in (3, 40):
        Image.fromarray(images[number, 0].numpy()).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case(tmp_path_factory.mktemp("points") / "drawn", count=4)


def run(method: str, of: Path, original: Path, made: Path, out: Path, **changes: Any) -> list[str]:
    """The lines of a run of the method that forgets the points of one folder only."""
    reads_shards = method == "distill"
    request = runs.Request(
        method=method,
        settings=SETTINGS_OF[method],
        loop=LoopSettings(every=2, monitor=not reads_shards),
        teacher=None if reads_shards else original,
        shards=str(made) if reads_shards else None,
        forget=(),
        forget_points=of,
        out=out,
    )
    lines: list[str] = []
    runs.unlearn(dataclasses.replace(request, **changes), lines.append)
    return lines


def test_an_image_is_near_by_the_distance_in_each_space_and_counts_for_the_nearest_point(
    tiny_teacher: Classifier,
) -> None:
    rng = torch.Generator().manual_seed(0)
    points, images = (torch.randint(0, 256, (n, 1, 28, 28), generator=rng, dtype=torch.uint8) for n in (5, 40))
    images[7] = points[2]
    images[7, 0, :2] += 40
    near = NearPoints(points, PointSettings(), tiny_teacher)
    epsilons = {"pixels": 3.0, "features": 2.0}
    found, counts = near.near(near.spaces_of(images), epsilons)
    expected: list[bool] = []
    by_key: dict[str, int] = {}
    for image in images:
        hits = []
        for space in epsilons:
            each = {
                "pixels": lambda x: x.flatten().float() / 255,
                "features": lambda x: outputs(tiny_teacher, x[None]).features[0],
            }[space]
            distances = [(each(image) - each(point)).norm().item() for point in points]
            best = min(range(5), key=distances.__getitem__)
            hits += [key(space, best)] if distances[best] <= epsilons[space] else []
        expected.append(bool(hits))
        for name in hits[:1]:
            by_key[name] = by_key.get(name, 0) + 1
    assert found.tolist() == expected
    assert counts == by_key
    assert by_key[key("pixels", 2)] == 1
    assert 1 < sum(expected) < 40  # so both answers occur


def test_equal_images_are_no_distance_apart() -> None:
    images = torch.randint(0, 256, (60, 3, 96, 96), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    near = NearPoints(images[:50], PointSettings(points_epsilon=1e-6))
    found, _ = near.near(near.spaces_of(images), {"pixels": 1e-6})
    assert found.tolist() == [True] * 50 + [False] * 10


def test_epsilon_is_a_share_of_the_median_distance_between_neighbours() -> None:
    vectors = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    assert between_neighbours(vectors) == 1.0  # the lower median of 1, 1, 2, 7
    assert between_neighbours(vectors[:1]) == float("inf")
    images = (vectors[:3, :, None, None] / 4).repeat(1, 1, 2, 2)
    near = NearPoints(images, PointSettings(points_share=0.5))
    assert near.epsilons(near.spaces_of(images)) == {"pixels": pytest.approx(0.25)}  # half of 4 x 1/4
    given = NearPoints(images, PointSettings(points_epsilon=7.0))
    assert given.epsilons(given.spaces_of(images)) == {"pixels": 7.0}


@pytest.mark.parametrize("window", [None, 2])
def test_samples_of_shards_are_compared_as_the_student_sees_them(tiny_run: Path, window: int | None) -> None:
    batch = stream_of(tiny_run, window=None).next(100)
    points = batch.views[[5, 60]]
    assert not torch.equal(points[0], batch.own[5])  # a view that mixes two images
    near = NearPoints(points, PointSettings(points_epsilon=1e-3))
    stream = stream_of(tiny_run, filters={"points": FarFromPoints(near)}, window=window)
    seen = torch.cat([stream.next(100).views for _ in range(3)])
    assert not any(torch.equal(view, point) for view in seen for point in points)
    assert stream.counts == {"kept": 298, "points": 2}
    assert stream.tallies == {key("pixels", 0): 1, key("pixels", 1): 1}


@pytest.mark.parametrize("at_once", [None, 70])
def test_before_fresh_views_images_are_compared_and_fall_with_all_their_samples(
    tiny_run: Path, tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch, at_once: int | None
) -> None:
    if at_once:
        monkeypatch.setattr(near_points, "AT_ONCE", at_once)
    batch = stream_of(tiny_run, window=None).next(100)
    near = NearPoints(batch.own[[5, 60]], PointSettings(points_epsilon=1e-3, points_feature_epsilon=1e-6), tiny_teacher)
    stream = stream_of(tiny_run, filters={"points": FarFromPoints(near, fresh=True)}, window=None)
    seen = torch.cat([stream.next(100).own for _ in range(3)])
    assert not any(torch.equal(image, point) for image in seen for point in batch.own[[5, 60]])
    assert stream.counts == {"kept": 294, "points": 6}  # each image with two views
    assert stream.tallies == {key("pixels", 0): 3, key("pixels", 1): 3}


def test_fresh_views_near_points_are_counted_also_by_a_run_that_goes_on(
    copied: Path, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, seen = Distillation.step, NearPoints.near_in_batch

    def one_is_near(self: NearPoints, x_unit: Tensor, count: bool, features: Tensor | None = None) -> Tensor:
        self.counts[key("pixels", 1)] += count
        return seen(self, x_unit, False, features)

    def interrupted(self: Distillation, number: int) -> dict[str, Tensor]:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(NearPoints, "near_in_batch", one_is_near)
    close = PointSettings(points_epsilon=1e-3, points_feature_epsilon=1e-6)
    changes: dict[str, Any] = {"teacher": tiny_teacher_path, "points": close}
    of = (copied, tiny_teacher_path, tiny_run, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "step", interrupted)
        with pytest.raises(InterruptedRunError):
            run("distill", *of, **changes)
    lines = run("distill", *of, **changes, resume=True)
    # Three samples of each of two images, and one view in each of four steps.
    assert "dropped samples near points: 10 near 2 of 2 points in pixels, none in features" in lines
    assert [entry["dropped_in_pixels"] for entry in json.loads((tmp_path / "run" / POINTS).read_text())] == [3, 7]


def test_a_run_drops_what_is_near_counts_it_per_point_and_lists_the_points(
    copied: Path, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    lines = run("distill", copied, tiny_teacher_path, tiny_run, out, points=PointSettings(points_share=1e-3))
    assert "dropped samples near points: 2 near 2 of 2 points in pixels" in lines
    facts = json.loads((out / PROVENANCE).read_text())
    assert (facts["real_images_read"], facts["points"]["images"]) == (2, 2)
    assert facts["points"]["dropped"] == {"pixels": 2}
    assert facts["samples"] == {"kept": 298, "distance to points": 2}
    assert json.loads((out / POINTS).read_text()) == [
        {"file": file, "label": None, "dropped_in_pixels": 1} for file in ("03.png", "40.png")
    ]
    assert load_checkpoint(out / STUDENT).card.training["points"]["how"] == "forgotten"


def test_a_filter_that_changes_nothing_says_so_and_gives_the_same_student(
    drawn: Path, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    small = PointSettings(points_share=1e-3)
    lines = run(
        "distill", drawn, tiny_teacher_path, tiny_run, tmp_path / "run", teacher=tiny_teacher_path, points=small
    )
    assert lines[1] == "forgets 4 points: samples near them are compared in pixels and in the teacher's features"
    assert any("the images resemble none of the points, and the filter changed nothing" in line for line in lines)
    smaller = PointSettings(points_share=1e-6)
    run("distill", drawn, tiny_teacher_path, tiny_run, tmp_path / "other", teacher=tiny_teacher_path, points=smaller)
    ours, theirs = (load_checkpoint(tmp_path / name / STUDENT).state_dict() for name in ("run", "other"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@METHODS
def test_every_method_stops_where_all_is_near_and_goes_on_where_nothing_is(
    method: str, drawn: Path, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run(method, drawn, tiny_teacher_path, tiny_run, tmp_path / "far", points=PointSettings(points_epsilon=1e-3))
    assert json.loads((tmp_path / "far" / PROVENANCE).read_text())["points"]["dropped"]["pixels"] == 0
    with pytest.raises(HopelessError):
        run(method, drawn, tiny_teacher_path, tiny_run, tmp_path / "near", points=PointSettings(points_epsilon=1e3))


def test_shards_that_nobody_reads_are_said_and_not_recorded(
    drawn: Path, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    """The monitor watches classes, and there is none to watch."""
    far = PointSettings(points_epsilon=1e-3)
    lines = run("gkt", drawn, tiny_teacher_path, tiny_run, tmp_path / "run", points=far, shards=str(tiny_run))
    assert f"--shards {tiny_run} is not read: gkt learns from no shards here, and watches no class" in lines
    facts = json.loads((tmp_path / "run" / PROVENANCE).read_text())
    assert (facts["shards"], facts["index_sha256"]) == (None, None)


def test_a_resumed_run_needs_the_same_points(
    drawn: Path, copied: Path, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    run("gkt", drawn, tiny_teacher_path, tiny_run, tmp_path / "run")
    with pytest.raises(UsageError, match="was begun with points_sha256"):
        run("gkt", copied, tiny_teacher_path, tiny_run, tmp_path / "run", resume=True)
    again = run("gkt", drawn.rename(drawn.parent / "moved"), tiny_teacher_path, tiny_run, tmp_path / "run", resume=True)
    (drawn.parent / "moved").rename(drawn)
    assert again[-1] == f"{tmp_path / 'run'} is complete already"
    assert json.loads((tmp_path / "run" / SETTINGS).read_text())["forget"] == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ([], "nothing is to be forgotten: name classes with --forget"),
        (["--forget", "0", "--points-share", "0.1"], "--points-share has no effect without --forget-points"),
        (["--forget-points", "POINTS", "--points-feature-epsilon", "1"], "has no effect without the teacher"),
        (["--forget-points", "nowhere"], "there is no folder of points nowhere"),
        (["--forget-points", "POINTS", "--points-share", "0"], "points share must be above 0 and at most 10"),
    ],
)
def test_a_wrong_request_is_one_line(
    options: list[str], line: str, drawn: Path, tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path
) -> None:
    places = {"POINTS": str(drawn)}
    given = ["distill", "--shards", str(tiny_run), "--out", str(tmp_path / "run"), "--threads", "1"]
    result = CliRunner().invoke(main, given + [places.get(option, option) for option in options])
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert line in result.stderr
    assert not (tmp_path / "run").exists()
