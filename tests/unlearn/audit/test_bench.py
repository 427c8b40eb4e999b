import copy
import zlib

import pytest
import torch

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from unlearn.audit import measures
from unlearn.audit.bench import Bench
from unlearn.audit.measures import resurrection

from .subjects import SMALL


@pytest.mark.parametrize("seed", [0, 3, 2**32 - 1])
def test_small_seeds_are_the_upper_half_of_the_generators(seed: int) -> None:
    bench = Bench(subjects={}, forget=(0,), settings=SMALL, seed=seed)
    assert bench.generator("probe", 5).initial_seed() == (seed << 32) + zlib.crc32(b"probe/5")


def test_a_seed_of_any_size_has_its_own_chance() -> None:
    benches = [Bench(subjects={}, forget=(0,), settings=SMALL, seed=seed) for seed in (0, 2**32, 2**33, 2**63 + 1)]
    assert len({bench.generator("probe", 5).initial_seed() for bench in benches}) == len(benches)


def test_of_several_forget_classes_the_worst_counts() -> None:
    bench = Bench(subjects={}, forget=(3, 8), settings=SMALL)
    labels = torch.tensor([3, 3, 3, 3, 8, 8, 1])
    right = torch.tensor([False, False, False, True, True, False, True])
    assert bench.most_called(right, labels) == 50
    assert bench.most_called(right, labels.where(labels != 8, 1)) == 25  # none of the other is there
    assert bench.fewest_of(labels) == 2


def test_a_long_experiment_says_how_far_it_is(tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    subjects = {"original": [tiny_teacher], "this model": [copy.copy(tiny_teacher)]}
    bench = Bench(subjects=subjects, forget=(0,), settings=SMALL, say=said.append)
    assert bench.repeated("quick", lambda model, repeat: repeat, 2)["original"] == [[0, 1]]
    assert said == []
    monkeypatch.setattr("unlearn.audit.bench.PLAIN_INTERVAL", 0.0)
    bench.repeated("slow", lambda model, repeat: repeat, 2)
    assert said == [f"slow: {number} of 4 runs" for number in (1, 2, 3, 4)]


def test_an_inversion_that_diverges_leaves_out_the_resurrection_alone(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object) -> None:
        raise UserError("the synthesis diverged")

    monkeypatch.setattr(resurrection, "synthesise", diverge)
    bench = Bench(subjects={"original": [tiny_teacher], "this model": [tiny_teacher]}, forget=(0,), settings=SMALL)
    found, missing, _ = measures.run_measures(bench)
    assert "head-norm" in {m.name for m in found}
    why = "the inversion of a model failed: the synthesis diverged"
    assert why in {line.why for line in missing if line.name == "resurrection"}
