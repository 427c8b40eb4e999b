"""Random gains on the features where the kept layers end: the same for teacher and student, and for nobody else."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import swin_t

from synth.basics.errors import UsageError
from synth.checkpoint.classifier import Classifier, to_unit
from tests.runs import digits_card
from tests.unlearn.shards import stream_of
from unlearn.methods.distill import distillation_loss
from unlearn.methods.distill_settings import DistillSettings
from unlearn.methods.feature_noise import FeatureNoise, channels_of, spread_over
from unlearn.methods.fresh_views import fresh_views

LAYER = "features.5"
QUICK = DistillSettings(
    steps=4, batch_size=16, shift=0, unmixed=0.5, view_crop=1.0, gate=1.0, keep_layers=LAYER, feature_noise=0.5
)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_a_copy_of_the_teacher_loses_nothing_by_the_noise_that_both_see(
    tiny_run: Path, tiny_teacher: Classifier
) -> None:
    batch, student = stream_of(tiny_run).next(16), copy.deepcopy(tiny_teacher)
    noise = FeatureNoise(student, LAYER, 0.5)
    loss = distillation_loss(student, batch, (), QUICK, seeded(), tiny_teacher, noise=noise)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    rng = seeded()
    x_unit = to_unit(fresh_views(batch.own, 0.5, 1.0, 0, False, rng))
    with noise.on(tiny_teacher, noise.draw(16, rng)):
        noisy = tiny_teacher(x_unit)
    assert not torch.allclose(noisy, tiny_teacher(x_unit), atol=0.1)  # the noise is off again, and was strong


def test_views_that_the_gate_drops_take_their_gains_along(tiny_run: Path, tiny_teacher: Classifier) -> None:
    batch, student = stream_of(tiny_run).next(16), copy.deepcopy(tiny_teacher)
    noise, settings = FeatureNoise(student, LAYER, 0.5), replace(QUICK, gate=0.02)
    loss = distillation_loss(student, batch, (3,), settings, seeded(), tiny_teacher, noise=noise)
    assert loss.item() < 0.05  # the teacher without the class, which has less than the gate's probability everywhere


def test_gains_are_positive_and_follow_the_seed() -> None:
    noise = FeatureNoise(Classifier.untrained(digits_card(), 0), LAYER, 1.0)
    gains = noise.draw(200, seeded())
    assert torch.equal(gains, noise.draw(200, seeded()))
    assert gains.min() == 0
    assert gains.mean() == pytest.approx(1.08, abs=0.03)  # of max(0, N(1, 1))


@pytest.mark.parametrize(
    ("shape", "scaled"), [((2, 3, 4, 4), 1), ((2, 5, 3), 2), ((2, 3), 1), ((2, 4, 5, 3), 3), ((2, 3, 3, 3), 3)]
)
def test_each_channel_has_its_gain(shape: tuple[int, ...], scaled: int) -> None:
    gains = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    found = torch.ones(shape) * spread_over(gains, torch.ones(shape), scaled)
    for channel in range(3):
        assert torch.equal(found.select(scaled, channel).reshape(2, -1)[:, -1], gains[:, channel])


class Pairs(nn.Module):
    """A layer of two outputs."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class OfPairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pairs, self.last = Pairs(), nn.Linear(784, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pairs(x.flatten(1))[0])


def test_a_layer_without_features_of_one_shape_is_refused() -> None:
    model = Classifier(OfPairs(), digits_card(architecture="tests:OfPairs"))
    with pytest.raises(UsageError, match="--feature-noise: the layer pairs gives no features of one shape"):
        channels_of(model, "pairs")


def test_maps_with_their_channels_last_get_a_gain_per_channel() -> None:
    card = digits_card(architecture="tests:swin", input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    swin = Classifier(swin_t(num_classes=10), card).freeze()
    noise = FeatureNoise(swin, "features.1", 0.5)
    assert noise.channels == 96  # of maps (N, 8, 8, 96)
    seen: list[Tensor] = []
    swin.net.get_submodule("features.2").register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    with torch.no_grad():
        swin(images := torch.rand(2, 3, 32, 32))
        with noise.on(swin, gains := noise.draw(2, seeded())):
            swin(images)
    assert torch.allclose(seen[1], seen[0] * gains[:, None, None])


def test_noise_and_mixup_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        replace(QUICK, mixup=0.2)
