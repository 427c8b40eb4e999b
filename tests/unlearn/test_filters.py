import math

import pytest
import torch
from torch import Tensor

from unlearn.samples.filters import (
    EntropyBelow,
    ForgetShareBelow,
    NoForgetLabel,
    View,
    apply,
    is_held_out,
)
from unlearn.samples.logits import entropy, post_filter, without_forget_classes


def view(probabilities: list[list[float]], labels: list[int], partners: list[int] | None = None) -> View:
    return View(torch.tensor(probabilities).log(), torch.tensor(labels), torch.tensor(partners or labels))


def test_entropy_is_in_nats() -> None:
    assert torch.allclose(entropy(torch.zeros(1, 10)), torch.tensor([math.log(10)], dtype=torch.double))
    assert entropy(torch.tensor([[100.0, 0.0, 0.0]])).item() < 1e-6


def test_a_blend_with_a_forget_class_is_dropped_however_small_its_share() -> None:
    seen = view([[0.0001, 0.9999]] * 3, labels=[1, 1, 0], partners=[1, 0, 1])
    assert NoForgetLabel((0,))(seen).tolist() == [True, False, False]


def test_one_forget_class_above_epsilon_is_enough_to_drop_a_sample() -> None:
    seen = view([[0.98, 0.01, 0.01], [0.009, 0.982, 0.009], [0.002, 0.5, 0.498]], [0, 1, 2])
    assert ForgetShareBelow((0,), 0.01)(seen).tolist() == [False, True, True]
    assert ForgetShareBelow((0, 2), 0.01)(seen).tolist() == [False, True, False]


def test_an_epsilon_of_one_passes_every_sample() -> None:
    certain = View(torch.tensor([[100.0, 0.0]]), torch.tensor([0]))
    assert certain.logits.double().softmax(1)[0, 0] == 1
    assert ForgetShareBelow((0,), 1.0)(certain).tolist() == [True]


def test_a_sample_counts_for_the_first_filter_that_drops_it() -> None:
    seen = view([[0.98, 0.01, 0.01], [0.4, 0.3, 0.3], [0.001, 0.5, 0.499], [0.001, 0.998, 0.001]], [0, 1, 1, 1])
    filters = {"label": NoForgetLabel((0,)), "gate": ForgetShareBelow((0,), 0.01), "entropy": EntropyBelow(0.1)}
    passed, dropped = apply(filters, seen)
    assert passed.tolist() == [False, False, False, True]
    assert dropped == {"label": 1, "gate": 1, "entropy": 1}


def test_forget_classes_get_no_probability_and_the_others_keep_their_ratios() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    target = without_forget_classes(logits, (0,))
    expected = torch.tensor([0.0, math.e, math.e**2, 1.0])
    assert torch.allclose(target, expected / expected.sum())
    assert torch.equal(logits, torch.tensor([[3.0, 1.0, 2.0, 0.0]]))


def test_the_post_filter_follows_its_equation_above_the_threshold_and_changes_nothing_below() -> None:
    logits = torch.tensor([[3.0, 1.0, -2.0, 0.0], [-9.0, 5.0, 4.0, 0.0]])
    filtered = post_filter(logits, (0,), threshold=0.01)
    share = (3.0 - -2.0) / 3
    assert torch.allclose(filtered[0], torch.tensor([-2.0, 1.0 + share, -2.0 + share, 0.0 + share]))
    assert torch.equal(filtered[1], logits[1])
    two = post_filter(logits, (0, 1), threshold=0.01)
    assert torch.allclose(two[0], torch.tensor([-2.0, -2.0, -2.0 + 4.0, 0.0 + 4.0]))


TEMPERATURES = pytest.mark.parametrize("temperature", [0.25, 1.0, 2.0, 4.0, 100.0])


@TEMPERATURES
@pytest.mark.parametrize("epsilon", [0.01, 0.2])
def test_the_gate_bounds_the_forget_classes_share_of_the_targets(temperature: float, epsilon: float) -> None:
    logits = 6 * torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))
    seen = View(logits, torch.zeros(4000, dtype=torch.long))
    passed = ForgetShareBelow((0, 2), epsilon, temperature)(seen)
    targets = (logits[passed] / temperature).softmax(1)[:, [0, 2]]
    assert not targets.numel() or targets.max() <= epsilon
    assert not torch.isin(
        logits[passed].argmax(1), torch.tensor([0, 2])
    ).any()  # a high temperature does not let such samples pass
    assert (passed == ForgetShareBelow((0, 2), epsilon)(seen)).all() or temperature != 1


@TEMPERATURES
def test_the_post_filter_leaves_a_forget_class_its_threshold_or_the_smallest_share(temperature: float) -> None:
    logits = 6 * torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))
    targets = (post_filter(logits, (0, 2), 0.01, temperature) / temperature).softmax(1)
    smallest = targets.min(1).values
    assert (targets[:, [0, 2]] <= smallest[:, None].clamp_min(0.01) + 1e-6).all()


def held_out_of(classes: int, per_class: int, share: float) -> Tensor:
    """Which images are held out, (per class, class)."""
    numbers = torch.arange(classes * per_class)
    seen = View(torch.empty(0), torch.empty(0), sources=numbers[:, None].expand(-1, 2), classes=classes)
    mask = is_held_out(seen, share)
    assert torch.equal(mask[:, 0], mask[:, 1])
    return mask[:, 0].view(per_class, classes)


@pytest.mark.parametrize(("per_class", "least", "most"), [(20, 1, 4), (100, 7, 14)])
def test_about_the_same_share_of_every_class_is_held_out(per_class: int, least: int, most: int) -> None:
    for classes in range(2, 1001, per_class // 20):
        held = held_out_of(classes, per_class, 0.1).sum(0)
        assert least <= held.min() <= held.max() <= most, f"{classes} classes"


def test_the_first_held_out_images_of_ten_classes_stay_the_same() -> None:
    numbers = held_out_of(10, 10, 0.1).flatten().nonzero()[:, 0]
    assert numbers.tolist() == [0, 5, 13, 26, 34, 47, 60, 68, 81, 89, 94]


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 10, 20, 50])
def test_the_numbers_of_the_images_decide_for_most_numbers_of_classes(classes: int) -> None:
    numbers = torch.arange(classes * 100).double()
    assert torch.equal(held_out_of(classes, 100, 0.3).flatten(), numbers / ((1 + math.sqrt(5)) / 2) % 1 < 0.3)
