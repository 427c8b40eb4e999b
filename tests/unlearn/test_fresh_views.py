"""Fresh views that the teacher labels while the student learns, and batch-norm statistics at the end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from synth.basics.errors import UsageError
from synth.checkpoint.batch_norm import batch_norm_layers, by_batch_statistics, channel_moments, estimating_anew
from synth.checkpoint.classifier import Classifier, to_unit
from synth.checkpoint.file import checkpoint_bytes, save_checkpoint
from synth.shards.index import read_index
from synth.shards.store import Folder
from tests.runs import digits_card
from tests.unlearn.shards import stream_of
from unlearn.methods.distill import LOOP, PRESETS, Distillation, distillation_loss, targets_for, training_filters
from unlearn.methods.distill_settings import KEPT_CROP, DistillSettings, fill_in
from unlearn.methods.fresh_views import EMPTY_BATCHES, NoViewsError, answered, fresh_views
from unlearn.methods.method import Inputs, StuckError
from unlearn.methods.student import student_card, teacher_card
from unlearn.run.carry_out import Request, unlearn
from unlearn.samples.filters import EntropyBelow, ForgetShareBelow
from unlearn.samples.logits import without_forget_classes
from unlearn.samples.near_points import NearPoints
from unlearn.samples.point_settings import PointSettings

QUICK = DistillSettings(steps=4, batch_size=16, shift=0, unmixed=0.5, view_crop=1.0, gate=1.0)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_views_that_mix_nothing_are_the_images_shifted_and_mirrored() -> None:
    images = torch.randint(0, 256, (64, 1, 20, 20), generator=seeded(), dtype=torch.uint8)
    for row, view in enumerate(fresh_views(images, 1.0, 1.0, 0, True, seeded())):
        padded = torch.nn.functional.pad(images[row].float()[None], (2, 2, 2, 2), mode="replicate")[0]
        possible = [padded[:, top : top + 20, left : left + 20] for top in range(5) for left in range(5)]
        assert any(torch.equal(view.float(), one) or torch.equal(view.float(), one.flip(2)) for one in possible)
    assert not torch.equal(
        fresh_views(images, 0.0, 1.0, 0, False, seeded()), fresh_views(images, 1.0, 1.0, 0, False, seeded())
    )


def test_a_view_shows_part_of_its_image() -> None:
    ramp = torch.arange(0, 240, 4, dtype=torch.uint8).expand(64, 3, 60, 60)  # a crop shows fewer of its grey values

    def shown(crop: float) -> torch.Tensor:
        views = fresh_views(ramp.contiguous(), 1.0, crop, 0, False, seeded()).float()
        return (views.amax((1, 2, 3)) - views.amin((1, 2, 3))) / 236

    assert shown(1.0).min() > 0.85
    assert 0.6 < shown(0.5).min() < 0.8  # the root of a half, and what a shift takes
    assert shown(0.5).mean() < shown(1.0).mean() - 0.05


def test_the_student_learns_the_answers_on_the_very_pixels_that_it_sees(
    tiny_run: Path, tiny_teacher: Classifier
) -> None:
    batch = stream_of(tiny_run, filters=training_filters((0,), QUICK)).next(16)
    student = Classifier.untrained(teacher_card(read_index(Folder(tiny_run)).card), 0).eval()
    loss = distillation_loss(student, batch, (0,), QUICK, seeded(), tiny_teacher)
    x_unit = to_unit(fresh_views(batch.own, 0.5, 1.0, 0, False, seeded()))
    q = without_forget_classes(tiny_teacher(x_unit), (0,))
    expected = (torch.xlogy(q, q) - q * student(x_unit).log_softmax(1)).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_views_of_the_class_take_part_with_sure_answers_without_it() -> None:
    settings = replace(QUICK, answer_forget=True, temperature=4.0)
    logits = torch.tensor([[9.0, 2.0, 1.0], [2.0, 9.0, 1.0], [2.0, 2.5, 1.0]])
    of_class, of_others = targets_for(logits, (0,), settings)[0], targets_for(logits, (0,), settings)[1:]
    assert torch.allclose(of_class, torch.tensor([0.0, *torch.tensor([2.0, 1.0]).softmax(0)]))
    assert torch.equal(of_others, without_forget_classes(logits, (0,), 4.0)[1:])
    assert set(training_filters((0,), settings)) == set()
    assert set(training_filters((0,), replace(settings, entropy=1.0))) == {"entropy"}


def test_the_gate_leaves_out_fresh_views(tiny_teacher: Classifier) -> None:
    x_unit = torch.rand(32, 1, 28, 28, generator=seeded())
    share = tiny_teacher(x_unit).softmax(1)[:, 1]
    bound = share.median().item()
    logits, kept = answered(x_unit, tiny_teacher, False, [ForgetShareBelow((1,), bound)])
    assert torch.equal(kept, share < bound)
    assert torch.equal(logits, tiny_teacher(x_unit))
    with pytest.raises(StuckError, match=f"the filters drop all fresh views of {EMPTY_BATCHES} batches in a row"):
        answered(x_unit, tiny_teacher, False, [ForgetShareBelow((1,), 0.5), EntropyBelow(0.0)])


@pytest.mark.parametrize("empty", [3, EMPTY_BATCHES])
def test_batches_without_a_view_that_passes_are_drawn_again(
    empty: int, tiny_run: Path, tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def some(*given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(len(given[0]))
        if len(seen) <= empty:
            raise NoViewsError("none")
        return answered(*given)

    monkeypatch.setattr("unlearn.methods.fresh_views.answered", some)
    card = student_card(teacher_card(read_index(Folder(tiny_run)).card), None, None, {})
    method = Distillation(Inputs(tiny_teacher, card, (0,), 0, "cpu", stream_of(tiny_run)), QUICK)
    if empty < EMPTY_BATCHES:
        assert method.step(0)["loss"].isfinite()
    else:
        with pytest.raises(StuckError):
            method.step(0)
    assert seen == [16] * min(empty + 1, EMPTY_BATCHES)


@pytest.mark.parametrize(("ways", "passes"), [({}, 1), ({"noise": True}, 2), ({"batch_statistics": True}, 2)])
def test_views_near_points_are_left_out_by_the_features_of_one_pass(
    tiny_teacher: Classifier, ways: dict[str, bool], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_unit = torch.rand(32, 1, 28, 28, generator=seeded())
    settings = PointSettings(points_epsilon=1e-6, points_feature_epsilon=0.1)
    points = NearPoints((x_unit[:3] * 255).to(torch.uint8), settings, tiny_teacher)
    expected = ~points.near_in_batch(x_unit, count=False)
    assert not expected[:3].any()  # rounded pixels are other pixels, so these are near in the features alone
    assert expected.any()
    calls, forward = [], Classifier.forward

    def counting(self: Classifier, x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(Classifier, "forward", counting)
    _, kept = answered(x_unit, tiny_teacher, filters=[], points=points, **{"batch_statistics": False, **ways})
    assert torch.equal(kept, expected)
    assert calls == [32] * passes
    assert points.counts.total() == (~expected).sum()


def test_answers_by_batch_statistics_change_no_teacher(tiny_teacher: Classifier) -> None:
    x_unit, layers = torch.rand(32, 1, 28, 28, generator=seeded()), batch_norm_layers(tiny_teacher)
    before = [layer.running_mean.clone() for layer in layers if layer.running_mean is not None]
    whole = checkpoint_bytes(tiny_teacher)
    assert not torch.equal(answered(x_unit, tiny_teacher, True, [])[0], tiny_teacher(x_unit))
    with by_batch_statistics(tiny_teacher):
        assert all(layer.training for layer in layers)
    assert not any(layer.training for layer in layers)
    for layer, mean in zip(layers, before, strict=True):
        assert layer.running_mean is not None
        assert torch.equal(layer.running_mean, mean)
    assert checkpoint_bytes(tiny_teacher) == whole


def test_statistics_that_are_estimated_anew_are_those_of_the_batches() -> None:
    model = Classifier.untrained(digits_card(), 0)
    first = batch_norm_layers(model)[0]
    seen: list[torch.Tensor] = []
    handle = first.register_forward_pre_hook(lambda layer, inputs: seen.append(channel_moments(inputs[0])[0]))
    with torch.no_grad(), estimating_anew(model):
        for _ in range(3):
            model(torch.rand(8, 1, 28, 28, generator=seeded()))
    handle.remove()
    assert first.running_mean is not None
    assert torch.allclose(first.running_mean, torch.stack(seen).mean(0), atol=1e-6)
    assert first.momentum == 0.1


def test_a_student_settles_on_images_as_they_are(tiny_run: Path) -> None:
    card = student_card(teacher_card(read_index(Folder(tiny_run)).card), None, None, {})

    def learn(settle: bool) -> Classifier:
        settings = replace(QUICK, unmixed=None, view_crop=None, settle=settle)
        samples = stream_of(tiny_run, filters=training_filters((0,), settings))
        method = Distillation(Inputs(None, card, (0,), 0, "cpu", samples), settings)
        for number in range(method.steps):
            method.step(number)
        return method.student.eval()

    settled, other = learn(True), learn(False)
    images = stream_of(tiny_run, filters=training_filters((0,), QUICK)).next(80).own
    first = batch_norm_layers(settled)[0]
    inputs: list[torch.Tensor] = []
    first.register_forward_pre_hook(lambda layer, given: inputs.append(channel_moments(given[0])[0]))
    settled(to_unit(images))
    assert first.running_mean is not None
    assert torch.allclose(first.running_mean, inputs[0], atol=0.02)
    assert all(torch.equal(a, b) for a, b in zip(settled.parameters(), other.parameters(), strict=True))
    assert not torch.allclose(batch_norm_layers(other)[0].running_mean, first.running_mean, atol=0.02)


def test_colour_images_are_taken_for_photographs(tiny_run: Path) -> None:
    grey = read_index(Folder(tiny_run)).card
    colour = replace(grey, image_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    found = fill_in(DistillSettings(), grey, teacher=True)
    assert (found.steps, found.flip, found.unmixed) == (4000, False, 0.0)
    found = fill_in(DistillSettings(), colour, images=5000)
    assert (found.steps, found.flip, found.unmixed) == (7812, False, None)
    assert fill_in(DistillSettings(), colour, teacher=True).flip is True
    assert [fill_in(DistillSettings(), colour, images=n).steps for n in (100, 10**6)] == [4000, 20_000]
    assert fill_in(DistillSettings(flip=False), colour, teacher=True).flip is False
    kept = DistillSettings(keep_layers="60%")
    assert [fill_in(kept, run).temperature for run in (colour, grey)] == [4, 1]
    assert [fill_in(kept, run, teacher=True).view_crop for run in (colour, grey)] == [KEPT_CROP, 1]
    assert fill_in(replace(kept, view_crop=0.8), colour, teacher=True).view_crop == 0.8
    assert fill_in(DistillSettings(), colour, teacher=True).view_crop == 1
    assert fill_in(DistillSettings(), colour).view_crop is None
    assert fill_in(replace(kept, temperature=2.0), colour).temperature == 2
    assert fill_in(replace(kept, hard_labels=True), colour).temperature == 1
    assert fill_in(DistillSettings(), colour).temperature == 1
    tuned = PRESETS["fine-tuning"]
    assert [fill_in(tuned, run, images=n).steps for run, n in ((colour, 400), (grey, 1000), (colour, 10**6))] == [
        500,
        1250,
        5000,
    ]


def test_distillation_with_its_teacher_at_hand(
    tiny_run: Path, tiny_teacher: Classifier, tiny_teacher_path: Path, tmp_path: Path
) -> None:
    def run(out: str, settings: DistillSettings, teacher: Path | None) -> dict[str, object]:
        request = Request(
            method="distill",
            settings=settings,
            loop=LOOP,
            teacher=teacher,
            shards=str(tiny_run),
            forget=(0,),
            out=tmp_path / out,
        )
        unlearn(request, lambda line: None)
        found: dict[str, object] = json.loads((tmp_path / out / "settings.json").read_text())
        return found

    settings = DistillSettings(steps=2, batch_size=8, gate=1.0)
    found = run("a", settings, tiny_teacher_path)
    assert (found["teacher"], found["unmixed"]) == (str(tiny_teacher_path), 0.0)
    assert run("b", settings, None)["unmixed"] is None
    students = [(tmp_path / name / "student.safetensors").read_bytes() for name in ("a", "b")]
    assert students[0] != students[1]
    other = tmp_path / "other.safetensors"
    save_checkpoint(Classifier.untrained(tiny_teacher.card, 1), other)
    with pytest.raises(UsageError, match="was made from another teacher"):
        run("c", settings, other)
    for idle in ({"unmixed": 0.0}, {"view_crop": 0.5}, {"answer_forget": True}, {"batch_statistics": True}):
        with pytest.raises(UsageError, match="has no effect without --teacher"):
            run("c", replace(settings, **idle), None)


def test_a_teacher_is_as_it_was_before_others_may_ask_it(tiny_teacher: Classifier) -> None:
    layers, training = batch_norm_layers(tiny_teacher), list[bool]()

    @contextmanager
    def alone() -> Iterator[None]:
        yield
        training.extend(layer.training for layer in layers)  # as another thread would find them

    answered(torch.rand(8, 1, 28, 28, generator=seeded()), tiny_teacher, True, [], around=alone())
    assert training
    assert not any(training)
