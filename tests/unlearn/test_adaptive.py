from dataclasses import replace

import pytest
import torch

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.methods import deepinversion
from synth.methods.deepinversion_settings import PHOTO, DeepInversionSettings
from synth.methods.losses import agreement, jensen_shannon
from tests.runs import digits_card
from unlearn.methods.adaptive import PRESETS, AdaptiveSettings, MadeImages, start, synthesis_settings
from unlearn.methods.method import Inputs, StuckError

SMALL = AdaptiveSettings(
    rounds=2, round_steps=3, per_class=3, synthesis_steps=12, synthesis_batch=27, batch_size=16, compete=10.0
)


def test_the_divergence_is_its_equation_and_at_most_one_bit() -> None:
    teacher, student = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    for n, value in enumerate(jensen_shannon(teacher, student).tolist()):
        p, q = teacher[n].softmax(0), student[n].softmax(0)
        m = (p + q) / 2
        expected = sum((p[c] * (p[c] / m[c]).log2() + q[c] * (q[c] / m[c]).log2()).item() for c in range(5)) / 2
        assert value == pytest.approx(expected, rel=1e-4)
    apart = torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 100.0]])
    assert jensen_shannon(*apart).item() == pytest.approx(1.0)
    assert jensen_shannon(teacher, teacher + 3).abs().max().item() < 1e-6


def test_competition_makes_images_that_the_student_disagrees_on(tiny_teacher: Classifier) -> None:
    def disagreement(compete: float) -> float:
        settings = AdaptiveSettings(
            rounds=2, per_class=3, synthesis_steps=20, synthesis_batch=27, batch_size=16, compete=compete
        )
        method = start(Inputs(tiny_teacher, digits_card(), (0,), 0, "cpu"), settings)
        x_unit = method.new_images(1).float() / 255
        assert method.student.training
        return jensen_shannon(tiny_teacher(x_unit), method.student.eval()(x_unit)).mean().item()

    assert disagreement(10.0) > disagreement(0.0)


def test_each_round_adds_its_images_and_keeps_the_old(tiny_teacher: Classifier) -> None:
    method = start(Inputs(tiny_teacher, digits_card(), (0,), 0, "cpu"), SMALL)
    for number in range(3):
        method.step(number)
    first = method.made.all.clone()
    assert first[:27].any(dim=(1, 2, 3)).all()
    assert not first[27:].any()
    assert torch.equal(method.made.state_dict()["images"], first[:27])  # a checkpoint holds what is made
    other = MadeImages(first.shape, "cpu")
    other.load_state_dict(method.made.state_dict())
    assert torch.equal(other.all, first)
    method.step(3)
    assert torch.equal(method.made.all[:27], first[:27])
    assert method.made.all[27:].any(dim=(1, 2, 3)).all()


def test_a_student_that_diverged_steers_no_synthesis(tiny_teacher: Classifier) -> None:
    method = start(Inputs(tiny_teacher, digits_card(), (0,), 0, "cpu"), SMALL)
    next(method.student.parameters()).data.fill_(float("nan"))
    with pytest.raises(StuckError, match=r"the student diverged .*: lower --lr"):
        method.new_images(1)


def test_agreement_is_1_where_teacher_and_student_are_equal() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert agreement(logits, logits).item() == pytest.approx(1.0, abs=1e-5)
    assert agreement(*torch.tensor([[[100.0, 0.0]], [[0.0, 100.0]]])).item() == pytest.approx(0.0, abs=1e-5)


def test_a_teacher_without_batch_norm_is_refused_with_another_way() -> None:
    card = digits_card(architecture="tests.runs:bare", width=1.0)
    with pytest.raises(UserError, match=r"has no batch-norm layers, .* or 'synth generate' and 'unlearn distill'"):
        start(Inputs(Classifier.untrained(card, 0), card, (0,), 0, "cpu"), SMALL)


@pytest.mark.parametrize(("side", "form"), [(32, deepinversion.SETTINGS()), (64, PHOTO)])
def test_images_have_the_form_that_suits_the_teacher(side: int, form: DeepInversionSettings) -> None:
    chosen = synthesis_settings(PRESETS["photographs"], (3, side, side))
    assert (chosen.crop, chosen.roll, chosen.each, chosen.bn) == (form.crop, form.roll, form.each, form.bn)
    assert (chosen.steps, chosen.flip, chosen.compete) == (200, True, 10.0)


def test_photographs_are_made_against_the_student() -> None:
    card = digits_card(architecture="resnet20", width=0.25, input_shape=(3, 64, 64), mean=(0.5,) * 3, std=(0.5,) * 3)
    teacher, lines = Classifier.untrained(card, 0).freeze(), list[str]()
    start(replace(inputs_of(teacher), say=lines.append), AdaptiveSettings())
    assert "--preset photographs" in lines[0]
    settings = replace(PRESETS["photographs"], rounds=2, round_steps=1, per_class=1, synthesis_steps=2)
    method = start(replace(inputs_of(teacher), say=lines.append), settings)
    assert len(lines) == 1
    for number in range(2):
        assert method.step(number)["loss"].isfinite()
    assert method.made.all.float().flatten(1).std(1).min() > 0


def inputs_of(teacher: Classifier) -> Inputs:
    return Inputs(teacher, teacher.card, (0,), 0, "cpu")
