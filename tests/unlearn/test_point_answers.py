"""The answers that memorised points get: by the student's own answers to other images, and only for such points."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from synth.basics.errors import InterruptedRunError, UsageError
from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.file import STUDENT, load_checkpoint
from tests.unlearn.shards import images_of, stream_of
from unlearn.methods import point_answers
from unlearn.methods.distill import Distillation, distillation_loss
from unlearn.methods.distill_settings import DistillSettings
from unlearn.methods.point_answers import (
    Answered,
    Answers,
    divergence,
    heard_views,
    listened_at,
    medians,
    others,
    renewed_at,
    shares,
)
from unlearn.points import UNKNOWN, Points
from unlearn.run import carry_out as runs
from unlearn.samples.point_settings import PointSettings
from unlearn.settings import LoopSettings


def test_memorised_labels_become_less_likely_by_one_factor_until_their_median_is_that_of_other_images() -> None:
    # Two synthetic images that the student calls 0; the median of log p is taken for each class.
    on_synthetic = torch.tensor([[0.90, 0.06, 0.04], [0.70, 0.10, 0.20]]).log()
    m, called = medians(on_synthetic)
    assert called.tolist() == [True, False, False]
    assert m[0].exp().tolist() == pytest.approx([0.70, 0.06, 0.04])  # torch's median of two is the lower one
    points = torch.tensor(
        [
            [0.50, 0.10, 0.40],  # memorised, label 2
            [0.95, 0.03, 0.02],  # typical: half as much of the other classes as in the medians
            [0.98, 0.01, 0.01],  # memorised, label 1
            [0.30, 0.10, 0.60],  # memorised, label 2, and still called by it
        ]
    )
    labels, memorised = torch.tensor([2, 0, 1, 2]), torch.tensor([True, False, True, True])
    found = shares(points.log(), labels, memorised, m, called)
    # Their labels are 10, 1/6 and 15 times as likely as in the medians. Half of that is usual, so 10 becomes 1/2.
    assert found.tolist() == pytest.approx([0.40 / 20, 0.95, 0.01 / 20, 0.60 / 20])
    rest = 1 - points.gather(1, labels[:, None])
    again = (points / rest * (1 - found[:, None])).scatter(1, labels[:, None], found[:, None])
    again[1] = points[1]
    assert torch.allclose(shares(again.log(), labels, memorised, m, called)[[0, 2, 3]], found[[0, 2, 3]], rtol=0.1)


def test_without_typical_points_the_other_classes_of_memorised_ones_show_the_sureness() -> None:
    m, called = medians(torch.tensor([[0.7, 0.1, 0.2]]).log())
    found = shares(torch.tensor([[0.55, 0.05, 0.40]]).log(), torch.tensor([2]), torch.tensor([True]), m, called)
    assert found.item() == pytest.approx(0.1)  # class 1 is half as likely as in the medians, so class 2 is, too


def test_a_point_of_a_class_without_synthetic_images_keeps_its_share() -> None:
    m, called = medians(torch.tensor([[0.7, 0.1, 0.2]]).log())
    point = torch.tensor([[0.1, 0.6, 0.3]])
    assert shares(point.log(), torch.tensor([2]), torch.tensor([True]), m, called).item() == pytest.approx(0.3)


def test_the_loss_of_grey_points_sees_the_label_and_not_what_else_they_could_be() -> None:
    points = Answered(torch.rand(2, 1, 4, 4), torch.tensor([2, 0]), torch.tensor([0.2, 1e-12]))
    right = torch.tensor([[0.5, 0.3, 0.2], [1e-9, 0.1, 0.9]]).log()
    swapped = torch.tensor([[0.1, 0.7, 0.2], [1e-9, 0.8, 0.2]]).log()
    assert divergence(points, right).item() == pytest.approx(0, abs=1e-5)
    assert divergence(points, swapped).item() == pytest.approx(0, abs=1e-5)
    surer = torch.tensor([[0.1, 0.1, 0.8], [1e-9, 0.1, 0.9]]).log().requires_grad_()
    loss = divergence(points, surer)
    (gradient,) = torch.autograd.grad(loss, surer)
    assert loss > 0.05
    assert gradient[0, 2] > 0 > gradient[0, 1]  # the label becomes less likely, and the others more


def test_the_loss_of_photographs_sees_what_else_they_could_be_too() -> None:
    rest = torch.tensor([[0.75, 0.25, 0]])
    point = Answered(torch.rand(1, 3, 4, 4), torch.tensor([2]), torch.tensor([0.2]), rest)
    assert divergence(point, torch.tensor([[0.6, 0.2, 0.2]]).log()).item() == pytest.approx(0, abs=1e-5)
    swapped = torch.tensor([[0.2, 0.6, 0.2]]).log().requires_grad_()
    loss = divergence(point, swapped)
    (gradient,) = torch.autograd.grad(loss, swapped)
    assert loss > 0.05
    assert gradient[0, 1] > 0 > gradient[0, 0]  # the second class becomes less likely, and the first more
    assert gradient[0, 2] == pytest.approx(0, abs=1e-6)  # the label is as likely as it should be


def test_views_say_what_else_a_photograph_could_be(monkeypatch: pytest.MonkeyPatch, tiny_teacher: Classifier) -> None:
    said = iter([[[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]], [[0.9, 0.0, 0.1], [1.0, 0.0, 0.0]]])
    monkeypatch.setattr(point_answers, "predict", lambda student, images: torch.tensor(next(said)).log())
    views = torch.zeros(2, 2, 3, 8, 8, dtype=torch.uint8)
    found = others(tiny_teacher, views, torch.tensor([0, 0]))
    assert found[0].tolist() == pytest.approx([0, 0.5, 0.5], abs=1e-6)
    assert found[1].tolist() == pytest.approx([0, 0.5, 0.5])  # the views say nothing but the label


def test_no_point_is_said_to_be_of_a_class_that_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, tiny_teacher: Classifier
) -> None:
    monkeypatch.setattr(
        point_answers, "predict", lambda model, x: torch.tensor([0.5, 0.3, 0.2]).log().expand(len(x), 3)
    )
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    points = Points("points", ("0", "1"), images, torch.tensor([1, 0]), ("a", "b", "c"))
    answers = Answers(points, tiny_teacher, "cpu", forget=(0,))
    assert answers.others is not None
    assert answers.others.tolist() == [pytest.approx([0, 0, 1]), pytest.approx([0, 0.6, 0.4])]
    assert Answers(points, tiny_teacher, "cpu", forget=(0, 2)).others is None  # beside class b none is left


@pytest.mark.parametrize(("channels", "at_hand"), [(1, True), (3, True), (3, False)])
def test_a_teacher_says_once_what_else_photographs_could_be(
    channels: int, at_hand: bool, monkeypatch: pytest.MonkeyPatch, tiny_teacher: Classifier
) -> None:
    images = torch.randint(0, 256, (3, channels, 32, 32), dtype=torch.uint8)
    points = Points("points", ("0", "1", "2"), images, torch.tensor([1, 0, 1]), ("a", "b", "c"))
    seen = list[int]()

    def says_the_first(model: Classifier, x: Tensor) -> Tensor:
        seen.append(len(x))
        return torch.tensor([0.6, 0.3, 0.1]).log().expand(len(x), 3)

    monkeypatch.setattr(point_answers, "predict", says_the_first)
    answers = Answers(points, tiny_teacher if at_hand else None, "cpu")
    assert seen == ([3] * point_answers.VIEWS if at_hand and channels == 3 else [])
    answers.listen(tiny_teacher, heard_views(points.images, True, 0))
    answers.renew(tiny_teacher, points.images[:1])
    drawn = answers.draw(20, torch.Generator().manual_seed(0))
    assert drawn is not None
    assert drawn.labels.tolist() == [1] * 20
    if at_hand and channels == 3:
        assert drawn.others is not None
        assert drawn.others[0].tolist() == pytest.approx([6 / 7, 0, 1 / 7])
    else:
        assert drawn.others is None


@pytest.mark.parametrize("steps", [1, 7, 20, 1500, 4000])
def test_targets_are_renewed_from_two_fifths_of_the_steps_on(steps: int) -> None:
    at = [step for step in range(steps) if renewed_at(step, steps)]
    assert at[0] == int(0.4 * steps)
    assert len(at) == pytest.approx(min(point_answers.RENEWALS, steps - at[0]), abs=3)
    heard = [step for step in range(steps) if listened_at(step, steps)]
    assert int(0.3 * steps) <= heard[0] <= heard[-1] <= at[0]  # so it is decided before the first targets
    assert len(heard) == pytest.approx(min(point_answers.ANSWERS, 0.1 * steps), abs=3)


def points_of(shards: Path, labels: Tensor) -> Points:
    images = images_of(shards).images[: len(labels)]
    return Points("points", tuple(map(str, range(len(labels)))), images, labels, tuple("0123456789"))


def test_points_without_a_label_have_the_teachers_and_without_a_teacher_none(
    tiny_teacher: Classifier, tiny_run: Path
) -> None:
    points = points_of(tiny_run, torch.tensor([4, UNKNOWN, UNKNOWN]))
    expected = predict(tiny_teacher, points.images[1:]).argmax(1).tolist()
    assert Answers(points, tiny_teacher, "cpu").labels.tolist() == [4, *expected]
    alone = Answers(points, None, "cpu")
    assert alone.labels.tolist() == [4]
    assert alone.draw(3, torch.Generator()) is None  # not renewed yet
    assert "of 3 points (2 with the teacher's label)" in Answers(points, tiny_teacher, "cpu").words
    assert alone.words == "the student calls all of 1 point by their label: it took none for memorised"


def test_the_mean_answer_decides_what_is_memorised(
    tiny_teacher: Classifier, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([[[0.9, 0.1], [0.6, 0.4]], [[0.4, 0.6], [0.3, 0.7]]])
    monkeypatch.setattr(point_answers, "predict", lambda student, images: torch.tensor(next(said)).log())
    points = dataclasses.replace(points_of(tiny_run, torch.tensor([0, 0])), class_names=("0", "1"))
    answers = Answers(points, None, "cpu")
    answers.listen(tiny_teacher, points.images)
    assert answers.memorised.tolist() == [False, False]
    answers.listen(tiny_teacher, points.images)
    assert answers.memorised.tolist() == [False, True]  # once each, and the second more clearly by the other class


@pytest.mark.parametrize("flip", [False, True])
def test_photographs_are_heard_in_other_views_and_grey_images_as_they_are(flip: bool) -> None:
    grey = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
    assert torch.equal(heard_views(grey, flip, 0), grey)
    brighter = torch.linspace(0, 255, 64).round().to(torch.uint8).expand(40, 3, 64, 64)  # from left to right
    first, again, later = (heard_views(brighter, flip, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert first.shape == brighter.shape
    assert not any(torch.equal(one, other) for one, other in zip(first, later, strict=True))
    mirrored = (first[:, 0, 32, 8] > first[:, 0, 32, -8]).float().mean()
    assert (0.2 < mirrored < 0.8) if flip else mirrored == 0


def test_what_is_called_by_its_label_as_it_is_but_not_in_other_views_is_memorised(
    monkeypatch: pytest.MonkeyPatch, tiny_teacher: Classifier
) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    points = Points("points", ("0", "1"), images, torch.tensor([0, 0]), ("a", "b"))

    def remembers_the_first(student: Classifier, x: Tensor) -> Tensor:
        says_label = [torch.equal(x[0], images[0]), True]
        return torch.tensor([[0.9, 0.1] if label else [0.1, 0.9] for label in says_label]).log()

    monkeypatch.setattr(point_answers, "predict", remembers_the_first)
    answers = Answers(points, None, "cpu")
    for step in range(3):
        answers.listen(tiny_teacher, heard_views(images, True, step))
    assert answers.memorised.tolist() == [True, False]


def request_of(tiny_run: Path, folder: Path, out: Path, **changes: object) -> runs.Request:
    request = runs.Request(
        method="distill",
        settings=DistillSettings(steps=40, batch_size=16, answer_points=True),
        loop=LoopSettings(every=10, monitor=False),
        teacher=None,
        shards=str(tiny_run),
        forget=(),
        forget_points=folder,
        out=out,
    )
    return dataclasses.replace(request, **changes)  # type: ignore[arg-type]


def folder_of(points: Points, folder: Path) -> Path:
    """The points as files, each in a folder of its label."""
    for number, (image, label) in enumerate(zip(points.images, points.labels.tolist(), strict=True)):
        place = folder / points.class_names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(place / f"{number}.png")
    return folder


def test_a_student_learns_the_answers_and_says_the_label_less(tiny_run: Path, tmp_path: Path) -> None:
    stored = images_of(tiny_run)
    wrong = (stored.labels[:12] + 3) % 10
    folder = folder_of(points_of(tiny_run, wrong), tmp_path / "points")
    shares = {}
    for answered in (False, True):
        out = tmp_path / str(answered)
        settings = DistillSettings(steps=40, batch_size=16, answer_points=answered)
        far = PointSettings(points_epsilon=1e-6)  # drops nothing, so that the answers alone differ
        runs.unlearn(request_of(tiny_run, folder, out, settings=settings, points=far), lambda line: None)
        p = predict(load_checkpoint(out / STUDENT).freeze(), stored.images[:12]).softmax(1)
        shares[answered] = p.gather(1, wrong[:, None]).log().mean().item()
    assert shares[True] < shares[False] - 0.1


def test_a_weight_makes_the_answers_count_more(tiny_run: Path, tiny_teacher: Classifier) -> None:
    batch, student = stream_of(tiny_run).next(16), Classifier.untrained(tiny_teacher.card, 5)
    points = Answered(torch.rand(3, 1, 28, 28), torch.arange(3), torch.full((3,), 0.01))

    def loss(weight: float, answered: Answered | None = points) -> float:
        settings = DistillSettings(steps=4, batch_size=16, shift=0, answer_points=True, answer_weight=weight)
        rng = torch.Generator().manual_seed(3)
        return distillation_loss(student.eval(), batch, (), settings, rng, answered=answered).item()

    of_views, of_points = loss(1, None), (19 * loss(1) - 16 * loss(1, None)) / 3
    assert loss(8) == pytest.approx((16 * of_views + 8 * 3 * of_points) / 19, rel=1e-4)


def test_an_interrupted_run_goes_on_with_the_answers_that_it_had(tiny_run: Path, tmp_path: Path) -> None:
    folder = folder_of(points_of(tiny_run, torch.arange(6) % 10), tmp_path / "points")
    whole = request_of(tiny_run, folder, tmp_path / "whole")
    runs.unlearn(whole, lambda line: None)
    step, broken = Distillation.step, request_of(tiny_run, folder, tmp_path / "broken")

    def interrupted(self: Distillation, number: int) -> dict[str, Tensor]:
        if number == 25:
            raise KeyboardInterrupt
        return step(self, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distillation, "step", interrupted)
        with pytest.raises(InterruptedRunError):
            runs.unlearn(broken, lambda line: None)
    runs.unlearn(dataclasses.replace(broken, resume=True), lambda line: None)
    assert (tmp_path / "broken" / STUDENT).read_bytes() == (tmp_path / "whole" / STUDENT).read_bytes()


def test_answers_without_points_or_labels_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    request = request_of(tiny_run, tmp_path, tmp_path / "out", forget_points=None, forget=(3,))
    with pytest.raises(UsageError, match="--answer-points has no effect without --forget-points"):
        runs.unlearn(request, lambda line: None)
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    Image.fromarray(images_of(tiny_run).images[0, 0].numpy()).save(unlabelled / "0.png")
    with pytest.raises(UsageError, match="--answer-points needs labels, and no point has one: put the points into"):
        runs.unlearn(request_of(tiny_run, unlabelled, tmp_path / "out"), lambda line: None)
    assert not (tmp_path / "out").exists()


def test_answers_for_classes_need_classes(tiny_run: Path, tiny_teacher_path: Path, tmp_path: Path) -> None:
    folder = folder_of(points_of(tiny_run, torch.tensor([1])), tmp_path / "points")
    settings = DistillSettings(steps=4, batch_size=16, answer_forget=True)
    request = request_of(tiny_run, folder, tmp_path / "out", settings=settings, teacher=tiny_teacher_path)
    with pytest.raises(UsageError, match="--answer-forget has no effect without --forget: name the classes"):
        runs.unlearn(request, lambda line: None)
