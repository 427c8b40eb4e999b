import math

import pytest
import torch

from unlearn.audit.measures import membership
from unlearn.audit.measures.membership import (
    advantage,
    called_members,
    likelihood_ratio,
    modified_entropy,
    retain_confidence,
    told_apart,
)
from unlearn.methods.masking import MASKED

RETAIN = (1, 2)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def answers(scale: float, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 3, generator=chance(seed)) * scale, torch.zeros(count, dtype=torch.long)


def test_modified_entropy_is_the_papers_sum() -> None:
    p = [0.7, 0.2, 0.1]
    logits = torch.tensor([p]).log()
    expected = -(1 - p[0]) * math.log(p[0]) - sum(q * math.log(1 - q) for q in p[1:])
    assert modified_entropy(logits, torch.tensor([0])).item() == pytest.approx(expected, abs=1e-6)


def test_modified_entropy_of_a_sure_and_right_answer_is_zero_and_of_a_sure_and_wrong_one_large() -> None:
    logits = torch.tensor([[60.0, 0.0, 0.0]])
    assert modified_entropy(logits, torch.tensor([0])).item() == pytest.approx(0, abs=1e-9)
    assert modified_entropy(logits, torch.tensor([1])).item() > 20  # with log p_i instead it would be the same as above


def test_a_mask_cannot_move_the_confidence_among_retain_classes() -> None:
    logits = torch.tensor([[9.0, 1.0, 0.0]])
    masked = torch.tensor([[MASKED, 1.0, 0.0]])
    assert torch.equal(retain_confidence(logits, RETAIN), retain_confidence(masked, RETAIN))
    assert retain_confidence(logits, RETAIN).item() == pytest.approx(1.0)  # log-odds of two classes: their difference


@pytest.mark.parametrize("attack", [told_apart, likelihood_ratio])
def test_members_that_differ_are_told_apart_and_others_are_not(attack: membership.Callable[..., float]) -> None:
    differing = {"forget members": answers(20, 200, 1), "forget others": answers(0.1, 200, 2)}
    alike = {"forget members": answers(5, 200, 1), "forget others": answers(5, 200, 2)}
    assert attack(differing, RETAIN, chance()) > 90
    assert abs(attack(alike, RETAIN, chance()) - 50) < membership.area_error(100) + 5


def test_forget_images_are_called_members_where_they_look_like_retain_members() -> None:
    sets = {
        name: answers(scale, 200, 1)
        for name, scale in (("retain members", 20), ("retain others", 1), ("forget others", 1))
    }
    assert called_members({**sets, "forget members": answers(20, 100, 3)}, RETAIN, chance()) > 80
    assert called_members({**sets, "forget members": answers(1, 100, 3)}, RETAIN, chance()) < 20


def test_the_advantage_is_in_telling_training_from_test_images_and_not_in_being_sure_of_both() -> None:
    retain = {"retain members": answers(20, 300, 1), "retain others": answers(1, 200, 2)}
    sure = {"forget members": answers(20, 200, 3), "forget others": answers(20, 200, 4)}
    remembered = {**sure, "forget others": answers(1, 200, 4)}
    assert called_members({**retain, **sure}, RETAIN, chance()) > 80
    assert abs(advantage({**retain, **sure}, RETAIN, chance())) < membership.advantage_error(200)
    assert advantage({**retain, **remembered}, RETAIN, chance()) > 60


def test_sets_are_balanced_without_replacement() -> None:
    members, others = membership.balanced(torch.arange(10)[:, None], torch.arange(4)[:, None], chance())
    assert (len(members), len(others)) == (4, 4)
    assert len(set(members[:, 0].tolist())) == 4
