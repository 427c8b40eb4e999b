"""Regressors: masses of bins from any head, ranges of a target, and what a card and a shard say of them."""

from __future__ import annotations

import dataclasses
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from synth.basics.errors import UsageError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint, save_checkpoint
from synth.checkpoint.masses import covered, masses_from, median, negative_log_likelihood, quantile
from synth.checkpoint.range_choice import choose
from synth.checkpoint.target import Bins, Target
from synth.checkpoint.target_options import TargetOptions
from synth.run.publish import verify
from synth.run.view import describe, draw_grid
from synth.shards.index import find_index, read_shard
from synth.shards.plan import Plan
from synth.shards.read import DamagedShardError, decode_target
from synth.shards.write import encode_target
from tests.runs import QUICKEST, digits_card, make_run, recipe_for

ANGLE = Target(name="angle", unit="degrees", low=0, high=180, bins=18)
GAUSSIAN = dataclasses.replace(ANGLE, head="gaussian", offset=90, scale=30)


def regressor_card(target: Target) -> ModelCard:
    return digits_card(class_names=target.bin_names, target=target)


def gaussian_raw(mean: float, std: float) -> Tensor:
    return torch.tensor([[(mean - 90) / 30, 2 * float(np.log(std / 30))]])


@pytest.mark.parametrize(("mean", "std"), [(90.0, 30.0), (12.3, 8.0), (170.0, 60.0)])
def test_a_gaussian_gives_each_bin_its_mass(mean: float, std: float) -> None:
    masses = masses_from(gaussian_raw(mean, std), GAUSSIAN).double().exp()[0]
    edges = np.array([-np.inf, *GAUSSIAN.edges[1:-1], np.inf])
    wider = np.sqrt(std**2 + 1)  # a tenth of a bin's width is 1 degree
    expected = np.diff(norm.cdf(edges, mean, wider))
    assert masses.numpy() == pytest.approx(expected, abs=1e-5)
    assert masses.sum().item() == pytest.approx(1, abs=1e-5)


def test_masses_far_from_the_mean_keep_a_finite_logarithm_and_gradient() -> None:
    raw = gaussian_raw(5.0, 0.01).requires_grad_()
    logits = masses_from(raw, GAUSSIAN)
    logits[0, -1].backward()
    assert torch.isfinite(logits).all()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()
    assert raw.grad[0, 0] > 0  # a larger mean makes the last bin likelier


def test_one_number_and_a_spread_are_a_gaussian_with_this_spread() -> None:
    number = Target(name="angle", low=0, high=180, bins=18, head="number", spread=8.0)
    expected = masses_from(gaussian_raw(40.0, 8.0), GAUSSIAN)
    for raw in (torch.tensor([40.0]), torch.tensor([[40.0]])):
        assert torch.allclose(masses_from(raw, number), expected, atol=1e-3)


def test_a_clipped_output_moves_the_mass_of_the_range_to_the_other_bins() -> None:
    raw = gaussian_raw(75.0, 8.0).requires_grad_()
    clipped = masses_from(raw, dataclasses.replace(GAUSSIAN, clip=(60.0, 90.0))).softmax(1)[0]
    whole = masses_from(raw, GAUSSIAN).softmax(1)[0]
    assert clipped[6:9].sum() == 0
    assert (clipped[5] / clipped[9]).item() == pytest.approx((whole[5] / whole[9]).item(), rel=1e-3)
    clipped[5].backward()
    assert raw.grad is not None


def test_median_likelihood_and_coverage_of_a_known_distribution() -> None:
    logits = torch.zeros(2, 18)  # even over 0 to 180
    values = torch.tensor([3.0, 91.0])
    assert median(logits, ANGLE).tolist() == pytest.approx([90, 90])
    assert quantile(logits, ANGLE, 0.05).tolist() == pytest.approx([9, 9])
    assert negative_log_likelihood(logits, values, ANGLE).tolist() == pytest.approx([np.log(180)] * 2)
    assert covered(logits, values, ANGLE, 0.9).tolist() == [False, True]


def test_a_range_is_its_bins_and_cards_keep_the_target(tmp_path: Path) -> None:
    card = regressor_card(GAUSSIAN)
    chosen = choose(["60:90"], card)
    assert isinstance(chosen, Bins)
    assert chosen == (6, 7, 8)
    assert GAUSSIAN.range_of(chosen) == (60, 90)
    save_checkpoint(Classifier.untrained(card, 0), tmp_path / "t.safetensors")
    back = load_checkpoint(tmp_path / "t.safetensors")
    assert back.card == card
    assert back(torch.rand(2, 1, 28, 28)).shape == (2, 18)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("60:200", "is not within the target's (angle in degrees, 0 to 180)"),
        ("-10:20", "is not within the target's"),
        ("90:60", "is empty"),
        ("60:60", "is empty"),
        ("0:180", "is all of the target's"),
        ("65:90", "cuts a bin"),
        ("65:90", "choose 60:90"),
        ("60:x", "'60:x' is no range"),
        ("cat", "'cat' is no range: write two numbers, such as 60:90"),
        ("nan:90", "is no range"),
    ],
)
def test_a_range_that_cannot_be_meant_is_refused(asked: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        choose([asked], regressor_card(ANGLE), "forget class")
    assert says in str(error.value)


def test_a_range_of_a_classifier_is_refused() -> None:
    with pytest.raises(UsageError, match="60:90 is a range, but the teacher is a classifier"):
        choose(["60:90"], digits_card())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": "regression", "head": "number", "target_range": "0:9"}, "give the network's typical error"),
        ({"task": "regression"}, "--target-range is missing"),
        ({"task": "regression", "target_range": "9:0"}, "ascending order"),
        ({"task": "regression", "target_range": "nan:9"}, "is no range"),
        ({"bins": 4}, "--bins has no effect without --task regression"),
    ],
)
def test_a_target_that_options_do_not_describe_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError) as error:
        TargetOptions(**options).target()  # type: ignore[arg-type]
    assert says in str(error.value)


@pytest.fixture(scope="module")
def regressor_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 18 images of a Gaussian regressor, one per bin, in 2 shards."""
    path = tmp_path_factory.mktemp("runs") / "angles"
    plan = Plan(classes=tuple(range(18)), per_class=1, shard_size=9, views=1)
    make_run(path, recipe_for(Classifier.untrained(regressor_card(GAUSSIAN), 0).freeze(), QUICKEST), plan)
    return path


def test_a_shard_holds_targets_and_answers_over_the_bins(regressor_run: Path, tmp_path: Path) -> None:
    from synth.shards.store import Folder

    store = Folder(regressor_run)
    index, problems = verify(store)
    assert not problems
    with tarfile.open(regressor_run / "shard-000000.tar") as tar:
        names = {name.partition(".")[2] for name in tar.getnames()}
        target = np.load(io.BytesIO(tar.extractfile("000000003.target.npy").read()))  # type: ignore[union-attr]
    assert names == {"png", "target.npy", "json", "logits.npy", "views.npy"}
    assert (target.dtype, target.shape, float(target)) == (np.dtype("float32"), (), 35.0)
    assert find_index(store) == index
    assert index.card.target == GAUSSIAN
    samples = read_shard(store, index, index.entries[1])
    assert samples.labels.tolist() == list(range(9, 18))
    assert samples.logits.shape == (9, 2, 18)
    assert "angle in degrees, 0 to 180, 1 images per bin" in describe(store)
    draw_grid(store, 1, tmp_path / "grid.png", ["60:90"])


@pytest.mark.parametrize("value", [np.nan, 36.0, -5.0, 185.0])
def test_a_target_that_is_no_bins_middle_is_refused(value: float) -> None:
    content = encode_target(3, ANGLE)
    damaged = content[:-4] + np.float32(value).tobytes()
    assert decode_target(content, "a shard", ANGLE) == 3
    with pytest.raises(DamagedShardError, match="is the middle of none of the 18 bins"):
        decode_target(damaged, "a shard", ANGLE)


def imported(path: Path, outputs: int, **options: object) -> ModelCard:
    """The card of a half-width LeNet5 with this number of outputs, after `unlearn import`."""
    from synth.checkpoint.building import build
    from unlearn.api import import_checkpoint

    torch.save(build("lenet5", 1, outputs, 28, 0.5).state_dict(), path / "net.pt")
    given = {"arch": "lenet5", "width": 0.5, "input_shape": "1,28,28", "mean": "0.3", "std": "0.3", **options}
    out = import_checkpoint(path / "net.pt", path / "teacher.safetensors", task="regression", **given)
    return load_checkpoint(out).card


def test_a_network_that_gives_one_number_is_imported_with_a_spread(tmp_path: Path) -> None:
    asked = {"target_name": "age", "target_unit": "years", "target_range": "0:90", "bins": 9}
    card = imported(tmp_path, 1, **asked, head="number", spread=5.0)
    assert card.target == Target(name="age", unit="years", low=0, high=90, bins=9, head="number", spread=5.0)
    with pytest.raises(UsageError, match="one number is --head number with --spread"):
        imported(tmp_path / "..", 1, **asked, head="gaussian")
