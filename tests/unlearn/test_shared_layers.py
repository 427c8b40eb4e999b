"""The kept layers are computed once for teacher and student, and nothing else changes by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from synth.checkpoint.classifier import Classifier
from tests.runs import digits_card
from tests.unlearn.shards import stream_of
from unlearn.methods.distill import distillation_loss, shared_layers
from unlearn.methods.distill_settings import DistillSettings
from unlearn.methods.early_layers import keep_layers
from unlearn.methods.feature_noise import FeatureNoise
from unlearn.methods.point_answers import Answered
from unlearn.methods.shared_layers import SharedLayers
from unlearn.samples.near_points import NearPoints
from unlearn.samples.point_settings import PointSettings

LAYER = "features.5"
SETTINGS = DistillSettings(shift=2, unmixed=0.5, view_crop=1.0, gate=0.02, keep_layers=LAYER)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize(("noise", "points"), [(0.0, 0), (0.5, 0), (0.0, 3)])
def test_loss_and_gradients_are_those_without_sharing(
    tiny_run: Path, tiny_teacher: Classifier, noise: float, points: int
) -> None:
    student, batch = Classifier.untrained(tiny_teacher.card, 5), stream_of(tiny_run).next(16)
    for layer in keep_layers(student.train(), tiny_teacher, LAYER):
        layer.training = False  # as `Distillation` does
    spread = FeatureNoise(student, LAYER, noise) if noise else None
    answered = None
    if points:
        answered = Answered(torch.rand(points, 1, 28, 28), torch.arange(points), torch.full((points,), 0.01))
    found = []
    for shared in (None, SharedLayers(student, LAYER)):
        student.zero_grad()
        ways = {"noise": spread, "shared": shared, "answered": answered}
        loss = distillation_loss(student, batch, (3,), SETTINGS, seeded(), tiny_teacher, **ways)
        loss.backward()
        found.append((loss, [p.grad for p in student.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0], found[1])
    assert found[0][1]
    assert len(found[0][1]) < len(list(student.parameters()))


def test_the_teacher_answers_alone_while_threads_compare_samples_with_the_points(
    tiny_run: Path, tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, batch = Classifier.untrained(tiny_teacher.card, 5), stream_of(tiny_run).next(16)
    points = NearPoints(batch.own[:3].clone(), PointSettings(points_epsilon=1e-6), tiny_teacher)
    answered = Answered(torch.rand(3, 1, 28, 28), torch.arange(3), torch.full((3,), 0.01))
    shared, held, forward = SharedLayers(student, LAYER), list[bool](), Classifier.forward

    def watched(self: Classifier, x: Tensor) -> Tensor:
        if self is tiny_teacher:
            held.append(points.lock.locked())
        return forward(self, x)

    monkeypatch.setattr(Classifier, "forward", watched)
    distillation_loss(
        student, batch, (3,), SETTINGS, seeded(), tiny_teacher, points=points, shared=shared, answered=answered
    )
    assert held == [True, True]  # the views, and the answered points
    assert not points.lock.locked()


class Counted(nn.Linear):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Positions(nn.Module):
    """A layer whose output has no row for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 8))

    def forward(self) -> Tensor:
        return self.table


class Awkward(nn.Module):
    """Sums in place, a layer that is called in both parts, and one whose output is the same for all images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = Counted(784, 8), Counted(8, 8), Counted(8, 8)
        self.relu, self.positions, self.last = nn.ReLU(inplace=True), Positions(), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x.flatten(1)))
        x += self.positions()
        x = x + self.second(x)
        x += 1
        return self.last(self.relu(self.third(x)))


def calls(model: Classifier) -> list[int]:
    return [layer.calls for layer in model.net.modules() if isinstance(layer, Counted)]


def test_awkward_networks_answer_the_same_and_compute_the_kept_layers_once() -> None:
    torch.manual_seed(0)
    card = digits_card(architecture="tests:Awkward")
    teacher, student = Classifier(Awkward(), card), Classifier(Awkward(), card)
    keep_layers(student, teacher, "second")
    x, kept = torch.rand(9, 1, 28, 28), torch.arange(9) % 3 > 0
    shared = SharedLayers(student, "second")
    assert set(shared.paths) == {"first", "relu", "second"}  # not positions, which are computed in both
    alone, answer = student(x[kept]), teacher(x)
    before = calls(student)
    with shared.noted(teacher):
        assert torch.equal(teacher(x), answer)
    with shared.given(student, kept):
        torch.testing.assert_close(student(x[kept]), alone)
    assert [now - then for then, now in zip(before, calls(student), strict=True)] == [0, 0, 1]
    assert torch.equal(student(x[kept]), alone)
    with shared.noted(teacher):
        teacher(x)
    shared.note_more(teacher, further := torch.rand(2, 1, 28, 28))
    with shared.given(student, torch.cat([kept, torch.tensor([True, False])])):
        found = student(torch.cat([x[kept], further[:1]]))
    torch.testing.assert_close(found, student(torch.cat([x[kept], further[:1]])))
    assert not any("forward" in layer.__dict__ for net in (teacher, student) for layer in net.net.modules())


def test_a_layer_that_ends_a_larger_one_is_shared_with_it() -> None:
    torch.manual_seed(0)

    def network() -> Classifier:
        first = nn.Sequential(nn.Flatten(), Counted(784, 8), nn.Sequential(nn.ReLU(), Counted(8, 8)))
        net = nn.Sequential(first, nn.ReLU(), Counted(8, 8), nn.ReLU(), Counted(8, 10))
        return Classifier(net, digits_card(architecture="tests:network"))

    teacher, student = network(), network()
    keep_layers(student, teacher, "0.2.1")
    x, kept = torch.rand(4, 1, 28, 28), torch.tensor([True, False, True, True])
    alone = student(x[kept])
    shared = SharedLayers(student, "0.2.1")
    assert shared.paths == ["0"]
    with shared.noted(teacher):
        teacher(x)
    before = calls(student)
    with shared.given(student, kept):
        torch.testing.assert_close(student(x[kept]), alone)
    assert [now - then for then, now in zip(before, calls(student), strict=True)] == [0, 0, 1, 1]


class Holder(nn.Module):
    """A layer that also holds a later one."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.later = nn.Linear(784, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x.flatten(1))


class OfHolder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = Holder(), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first.later(self.first(x).relu()))


def test_nothing_is_shared_where_the_last_kept_layer_holds_a_later_one() -> None:
    student = Classifier(OfHolder(), digits_card(architecture="tests:OfHolder"))
    assert SharedLayers(student, "first").paths == []


class Pairs(nn.Module):
    """A layer of more than tensors."""

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        return x, "more"


class OfPairs(nn.Module):
    """The layer after which the shared part ends gives more than tensors, and a layer is called in both parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu, self.pairs = nn.Linear(784, 8), nn.ReLU(), Pairs()
        self.second, self.last = nn.Linear(8, 8), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.pairs(self.relu(self.first(x.flatten(1))))
        return self.last(self.relu(self.second(x)))


def test_nothing_is_shared_where_the_last_kept_layer_gives_more_than_tensors() -> None:
    card = digits_card(architecture="tests:OfPairs")
    teacher, student = Classifier(OfPairs(), card), Classifier(OfPairs(), card)
    keep_layers(student, teacher, "pairs")
    x, kept = torch.rand(4, 1, 28, 28), torch.tensor([True, True, False, True])
    shared = SharedLayers(student, "pairs")
    with shared.noted(teacher):
        teacher(x)
    with shared.given(student, kept):
        found = student(x[kept])
    torch.testing.assert_close(found, student(x[kept]))


@pytest.mark.parametrize("change", [{"mixup": 0.2}, {"batch_statistics": True}])
def test_layers_that_see_other_images_are_not_shared(tiny_teacher: Classifier, change: dict[str, float]) -> None:
    assert shared_layers(tiny_teacher, SETTINGS)
    assert shared_layers(tiny_teacher, replace(SETTINGS, **change)) is None
    assert shared_layers(tiny_teacher, replace(SETTINGS, keep_layers="")) is None
