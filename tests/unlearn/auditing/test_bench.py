import copy
import zlib

import pytest
import torch

from synth.basics import progress
from synth.basics.errors import UserError
from synth.basics.ticks import tick
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.layers import last_layer
from unlearn.auditing import bench as bench_module
from unlearn.auditing import measures
from unlearn.auditing.bench import Bench
from unlearn.auditing.images import Source
from unlearn.auditing.measures import resurrection
from unlearn.data import load_images

from .subjects import SMALL


def test_outputs_are_computed_once_per_model_and_set_of_images(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load_images("digits", "test").select(torch.arange(8))
    computed: list[torch.Tensor] = []
    plain = bench_module.outputs
    monkeypatch.setattr(bench_module, "outputs", lambda model, x, report: computed.append(x) or plain(model, x))
    bench = Bench(subjects={"original": [tiny_teacher]}, forget=(0,), settings=SMALL)
    first = bench.outputs(tiny_teacher, images)
    assert bench.beside({"this model": [tiny_teacher]}).outputs(tiny_teacher, images) is first
    assert len(computed) == 1
    equal = images.select(torch.arange(8))  # other images, even if they are equal
    assert bench.outputs(tiny_teacher, equal) is not first


def test_a_model_that_answers_with_nan_is_not_measured_and_the_record_says_why(tiny_teacher: Classifier) -> None:
    broken = copy.deepcopy(tiny_teacher)
    with torch.no_grad():
        last_layer(broken).weight[:] = float("nan")
    data = load_images("digits", "train").select(torch.arange(400))
    source = Source("real", "real test images of digits", data, data)
    subjects = {"original": [tiny_teacher], "this model": [broken]}
    found, missing, _ = measures.run_measures(Bench(subjects=subjects, forget=(0,), settings=SMALL, real=source))
    assert found == []
    reasons = {line.name: line.why for line in missing}
    assert reasons["probe"] == "a model answers some image with NaN or infinity"
    assert reasons["head-norm"] == "the value of this model is infinite or not a number"


@pytest.mark.parametrize("seed", [0, 3, 2**32 - 1])
def test_a_small_seed_is_the_upper_half_of_the_random_sources_seed(seed: int) -> None:
    bench = Bench(subjects={}, forget=(0,), settings=SMALL, seed=seed)
    assert bench.rng("probe", 5).initial_seed() == (seed << 32) + zlib.crc32(b"probe/5")


def test_a_seed_of_any_size_has_its_own_random_source() -> None:
    benches = [Bench(subjects={}, forget=(0,), settings=SMALL, seed=seed) for seed in (0, 2**32, 2**33, 2**63 + 1)]
    assert len({bench.rng("probe", 5).initial_seed() for bench in benches}) == len(benches)


def test_of_several_forget_classes_the_worst_counts() -> None:
    bench = Bench(subjects={}, forget=(3, 8), settings=SMALL)
    labels = torch.tensor([3, 3, 3, 3, 8, 8, 1])
    right = torch.tensor([False, False, False, True, True, False, True])
    assert bench.most_called(right, labels) == 50
    assert bench.most_called(right, labels.where(labels != 8, 1)) == 25  # class 8 has no image
    assert bench.fewest_of(labels) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_long_experiment_shows_how_far_it_is_inside_its_runs(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    subjects = {"original": [tiny_teacher], "this model": [copy.copy(tiny_teacher)]}
    bench = Bench(subjects=subjects, forget=(0,), settings=SMALL, workers=workers)

    def experiment(model: Classifier, repeat: int) -> int:
        tick(1, 4)
        return repeat

    assert bench.repeated("quick", experiment, 2)["original"] == [[0, 1]]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "FIRST_LINE", 0.0)
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    bench.repeated("slow", experiment, 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("slow: 0 of 4 runs (6.2%), ")  # a quarter of the first run
    assert lines[-1].startswith("slow: 4 of 4 runs (100%), ")


def test_an_inversion_that_diverges_leaves_out_only_the_resurrection(
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
