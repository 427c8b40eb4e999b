import copy
import dataclasses

import pytest
import torch

from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.file import load_checkpoint
from synth.checkpoint.layers import last_layer
from unlearn.auditing.bench import Bench
from unlearn.auditing.measures.relearn import Curve, anamnesis, checkpoints, draw_rows_anew, relearn, target_for
from unlearn.auditing.record.record import CannotRunError
from unlearn.data import LabelledImages, load_images
from unlearn.methods.masking import mask_logits

from .subjects import SMALL

BENCH = Bench(subjects={}, forget=(0,), settings=SMALL)


def curve(*accuracy: float) -> Curve:
    return Curve(tuple(range(len(accuracy))), accuracy)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    return load_images("digits", "train").select(torch.arange(200))


def run(model: Classifier, digits: LabelledImages, fresh_rows: bool = True) -> Curve:
    zeros = digits.select(digits.labels == 0)
    return relearn(model, digits, zeros, BENCH, rng(), fresh_rows)


def test_a_curve_that_ends_below_the_target_is_censored() -> None:
    assert curve(0, 50, 96, 97).reaches(95) == (2, False)
    assert curve(0, 50, 60).reaches(95) == (2, True)
    assert curve(0, 50, 100).mean == 50


def test_the_index_has_both_step_counts_and_says_whether_it_is_only_a_bound() -> None:
    quick, slow, never = [[curve(0, 99, 99, 99)]], [[curve(0, 0, 99, 99)]], [[curve(0, 0, 0, 0)]]
    exact = anamnesis({"this model": quick, "retrained": slow}, 95)
    assert exact is not None
    assert (exact["steps_model"], exact["steps_retrained"], exact["index"], exact["bound"]) == (1, 2, 0.5, "exact")
    for ours, theirs, bound in ((never, slow, "at least"), (slow, never, "at most"), (never, never, "unknown")):
        found = anamnesis({"this model": ours, "retrained": theirs}, 95)
        assert found is not None
        assert found["bound"] == bound
    assert anamnesis({"this model": quick}, 95) is None


def test_steps_are_spaced_as_logarithms_from_zero_to_the_last() -> None:
    assert checkpoints(16) == (0, 1, 2, 3, 4, 6, 8, 12, 16)
    assert checkpoints(1) == (0, 1)


def test_the_model_is_copied_and_the_same_seed_gives_the_same_curve(
    tiny_teacher: Classifier, digits: LabelledImages
) -> None:
    before = copy.deepcopy(tiny_teacher.state_dict())
    first = run(tiny_teacher, digits)
    assert run(tiny_teacher, digits) == first
    assert all(torch.equal(value, before[name]) for name, value in tiny_teacher.state_dict().items())
    assert not tiny_teacher.training


def test_dropout_is_off_so_that_only_the_seed_decides(tiny_teacher: Classifier, digits: LabelledImages) -> None:
    model = copy.deepcopy(tiny_teacher)
    model.net = torch.nn.Sequential(torch.nn.Dropout(0.5), model.net)
    assert run(model, digits) == run(model, digits)
    before = torch.random.get_rng_state()
    run(model, digits)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_step_is_made_after_the_last_look(
    tiny_teacher: Classifier, digits: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[object] = []
    monkeypatch.setattr(torch.optim.Adam, "step", lambda optimiser: steps.append(optimiser))
    run(tiny_teacher, digits)
    assert len(steps) == SMALL.relearn_steps


def test_a_mask_does_not_hide_from_relearning(tiny_teacher_path: object, digits: LabelledImages) -> None:
    original, masked = (load_checkpoint(tiny_teacher_path) for _ in range(2))  # type: ignore[arg-type]
    mask_logits(masked, (0,))
    assert run(masked, digits) == run(original, digits)
    assert max(run(masked, digits, fresh_rows=False).accuracy) == 0  # what relearning looks like if the mask stays on


def test_fresh_rows_change_only_the_forget_classes(tiny_teacher_path: object) -> None:
    model = load_checkpoint(tiny_teacher_path)  # type: ignore[arg-type]
    before = copy.deepcopy(last_layer(model).state_dict())
    draw_rows_anew(model, (0, 3), rng())
    after = last_layer(model).state_dict()
    changed = [c for c in range(10) if not torch.equal(before["weight"][c], after["weight"][c])]
    assert changed == [0, 3]
    others = before["bias"][[1, 2, 4, 5, 6, 7, 8, 9]].mean()
    assert after["bias"][[0, 3]].tolist() == pytest.approx([others.item()] * 2)


def test_the_target_is_of_the_class_that_the_original_calls_most_often_as_the_curves_are(
    tiny_teacher: Classifier,
) -> None:
    data = load_images("digits", "test")
    labels = data.labels.clone()
    labels[data.labels == 3] = 8  # of class 8, the original now calls about half by another name
    judge = dataclasses.replace(data, labels=labels)
    judge = judge.select((labels == 0) | (labels == 8))
    bench = Bench(subjects={"original": [tiny_teacher]}, forget=(0, 8), settings=SMALL)
    right = predict(tiny_teacher, judge.images).argmax(1) == judge.labels
    shares = [right[judge.labels == c].double().mean().item() for c in (0, 8)]
    assert shares[1] < 0.7 < shares[0]
    assert target_for(bench, judge) == pytest.approx(95 * shares[0])


def test_a_curve_that_diverges_is_not_a_value(tiny_teacher: Classifier, digits: LabelledImages) -> None:
    model = copy.deepcopy(tiny_teacher)
    last_layer(model).register_forward_hook(lambda layer, inputs, logits: logits * float("inf"))
    with pytest.raises(CannotRunError, match="NaN or infinity"):
        run(model, digits)
