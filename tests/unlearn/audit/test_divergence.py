import math

import pytest
import torch
import torch.nn.functional as F

from unlearn.audit.measures.divergence import activation_distance, js_bits, zero_retrain_forgetting


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_models_that_disagree_on_everything_score_zero_whatever_the_number_of_classes(classes: int) -> None:
    p = F.one_hot(torch.tensor([0, 1]), classes).double()
    q = F.one_hot(torch.tensor([1, 0]), classes).double()
    assert zero_retrain_forgetting(p, q) == pytest.approx(0)
    assert zero_retrain_forgetting(p, p) == pytest.approx(1)


def test_divergence_in_bits_by_the_closed_form() -> None:
    p, q = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    expected = 0.5 * math.log2(1 / 0.75) + 0.5 * (0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25))
    assert js_bits(p, q).item() == pytest.approx(expected, abs=1e-6)
    assert js_bits(q, p).item() == pytest.approx(expected, abs=1e-6)


def test_divergence_is_bounded_and_a_mean_over_images_alone() -> None:
    p, q = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(0)).double().mul(30).softmax(2)
    values = js_bits(p, q)
    assert values.shape == (50,)
    assert values.min() >= 0
    assert values.max() <= 1


def test_activation_distance_of_opposite_answers_is_the_square_root_of_two() -> None:
    p, q = torch.eye(3)[[0]], torch.eye(3)[[2]]
    assert activation_distance(p, q).item() == pytest.approx(math.sqrt(2))
