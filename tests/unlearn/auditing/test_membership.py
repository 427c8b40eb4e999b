import math

import pytest
import torch

from unlearn.auditing.bench import Bench
from unlearn.auditing.measures import membership
from unlearn.auditing.measures.membership import (
    advantage,
    called_members,
    likelihood_ratio,
    modified_entropy,
    retain_confidence,
    told_apart,
)
from unlearn.methods.masking import MASKED

from .subjects import SMALL

RETAIN = (1, 2)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def answers(scale: float, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 3, generator=rng(seed)) * scale, torch.zeros(count, dtype=torch.long)


def test_modified_entropy_is_the_papers_sum() -> None:
    p = [0.7, 0.2, 0.1]
    logits = torch.tensor([p]).log()
    expected = -(1 - p[0]) * math.log(p[0]) - sum(q * math.log(1 - q) for q in p[1:])
    assert modified_entropy(logits, torch.tensor([0])).item() == pytest.approx(expected, abs=1e-6)


def test_modified_entropy_of_a_sure_and_right_answer_is_zero_and_of_a_sure_and_wrong_one_large() -> None:
    logits = torch.tensor([[60.0, 0.0, 0.0]])
    assert modified_entropy(logits, torch.tensor([0])).item() == pytest.approx(0, abs=1e-9)
    assert modified_entropy(logits, torch.tensor([1])).item() > 20  # with log p_i instead, it would be 0 too


def test_a_mask_cannot_move_the_confidence_among_retain_classes() -> None:
    logits = torch.tensor([[9.0, 1.0, 0.0]])
    masked = torch.tensor([[MASKED, 1.0, 0.0]])
    assert torch.equal(retain_confidence(logits, RETAIN), retain_confidence(masked, RETAIN))
    assert retain_confidence(logits, RETAIN).item() == pytest.approx(
        1.0
    )  # the log-odds of two classes are the difference of their logits


@pytest.mark.parametrize("attack", [told_apart, likelihood_ratio])
def test_an_attack_tells_members_that_differ_and_no_others(attack: membership.Attack) -> None:
    differing = {"forget members": answers(20, 200, 1), "forget others": answers(0.1, 200, 2)}
    alike = {"forget members": answers(5, 200, 1), "forget others": answers(5, 200, 2)}
    assert attack(differing, RETAIN, rng()) > 90
    assert abs(attack(alike, RETAIN, rng()) - 50) < membership.area_error(100) + 5


def test_forget_images_are_called_members_if_they_look_like_retain_members() -> None:
    sets = {
        name: answers(scale, 200, 1)
        for name, scale in (("retain members", 20), ("retain others", 1), ("forget others", 1))
    }
    assert called_members({**sets, "forget members": answers(20, 100, 3)}, RETAIN, rng()) > 80
    assert called_members({**sets, "forget members": answers(1, 100, 3)}, RETAIN, rng()) < 20


def test_a_model_that_is_sure_of_training_and_test_images_alike_gives_no_advantage() -> None:
    retain = {"retain members": answers(20, 300, 1), "retain others": answers(1, 200, 2)}
    sure = {"forget members": answers(20, 200, 3), "forget others": answers(20, 200, 4)}
    remembered = {**sure, "forget others": answers(1, 200, 4)}
    assert called_members({**retain, **sure}, RETAIN, rng()) > 80
    assert abs(advantage({**retain, **sure}, RETAIN, rng())) < membership.advantage_error(200)
    assert advantage({**retain, **remembered}, RETAIN, rng()) > 60


def test_sets_are_balanced_without_replacement() -> None:
    members, others = membership.balanced(torch.arange(10)[:, None], torch.arange(4)[:, None], rng())
    assert (len(members), len(others)) == (4, 4)
    assert len(set(members[:, 0].tolist())) == 4


def test_every_seed_has_its_own_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.model_selection

    states: list[int] = []
    plain = sklearn.model_selection.StratifiedKFold

    def noted(folds: int, shuffle: bool, random_state: int) -> object:
        states.append(random_state)
        return plain(folds, shuffle=shuffle, random_state=random_state)

    monkeypatch.setattr(sklearn.model_selection, "StratifiedKFold", noted)
    sets = {"forget members": answers(20, 20, 1), "forget others": answers(0.1, 20, 2)}
    for seed in (0, 1, 2**40):
        bench = Bench(subjects={}, forget=(0,), settings=SMALL, seed=seed)
        told_apart(sets, RETAIN, bench.rng("membership", "forget", 0))
    assert len(set(states)) == 3
    assert all(0 <= state < 2**32 for state in states)
