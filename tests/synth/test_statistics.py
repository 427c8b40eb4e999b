import math
import statistics as slow
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from synth.checkpoint import batch_norm as statistics
from synth.checkpoint.batch_norm import (
    ROWS,
    BatchStatistics,
    FusedBatchNorm,
    batch_norm_layers,
    channel_moments,
    input_loss,
    watch_batch_norm,
)
from synth.checkpoint.classifier import Classifier
from synth.methods.deepinversion import may_sample
from synth.methods.deepinversion_settings import PHOTO
from tests.runs import digits_card


def random_network(seed: int = 0) -> nn.Sequential:
    """Two batch-norm layers, of images and of vectors, with running statistics of no special kind."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4)
    )
    for layer in batch_norm_layers(net):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.2, 2.0)
    return net.eval()


def observed(net: nn.Module, x: Tensor) -> BatchStatistics:
    with torch.no_grad(), watch_batch_norm(net) as found:
        net(x)
    return found


def channels(net: nn.Sequential, x: Tensor) -> list[list[tuple[float, float, float, float, float]]]:
    """Per batch-norm layer and channel: batch mean and variance, running mean and variance, epsilon; by plain loops."""
    layers = []
    for module in net:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            values = [x[:, c].flatten().double().tolist() for c in range(x.shape[1])]
            assert module.running_mean is not None
            assert module.running_var is not None
            running = zip(module.running_mean.tolist(), module.running_var.tolist(), strict=True)
            layers.append(
                [(slow.mean(v), slow.pvariance(v), m, s, module.eps) for v, (m, s) in zip(values, running, strict=True)]
            )
        x = module(x).detach()
    return layers


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_the_published_loss_is_equation_4(weight: float) -> None:
    net, x = random_network(), torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = 0.0
    for number, layer in enumerate(channels(net, x)):
        mean_distance = math.sqrt(sum((m - rm) ** 2 for m, _, rm, _, _ in layer))
        variance_distance = math.sqrt(sum((v - rv) ** 2 for _, v, _, rv, _ in layer))
        expected += (weight if number == 0 else 1.0) * (mean_distance + variance_distance)
    assert observed(net, x).published_loss(weight).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_the_normalised_loss_is_its_formula(weight: float) -> None:
    net, x = random_network(), torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    total, weights = 0.0, 0.0
    for number, layer in enumerate(channels(net, x)):
        terms = [(m - rm) ** 2 / (rv + e) + ((v + e) / (rv + e) - 1) ** 2 for m, v, rm, rv, e in layer]
        w = weight if number == 0 else 1.0
        total, weights = total + w * sum(terms) / len(terms), weights + w
    assert observed(net, x).normalised_loss(weight).item() == pytest.approx(total / weights, rel=1e-4)


def test_both_losses_are_zero_on_the_batch_of_the_statistics() -> None:
    net, rng = random_network(), torch.Generator().manual_seed(3)
    x = torch.randn(512, 2, 4, 4, generator=rng)
    for layer in batch_norm_layers(net):
        layer.momentum = 1.0
    net.train()(x)
    net.eval()
    own, other = observed(net, x), observed(net, 2 * x + 1)
    assert own.normalised_loss() < 1e-4 < 0.1 < other.normalised_loss()
    assert own.published_loss() < 0.02 < 0.5 < other.published_loss()


@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 5), (8, 3, 5, 4), (2, 3, 2, 3, 4)])
def test_channel_moments_are_the_mean_and_the_biased_variance(shape: tuple[int, ...]) -> None:
    x = 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(4))
    mean, variance = channel_moments(x)
    dims = [d for d in range(x.dim()) if d != 1]
    torch.testing.assert_close(mean, x.mean(dims))
    torch.testing.assert_close(variance, x.var(dims, unbiased=False), rtol=1e-4, atol=1e-5)


def test_a_constant_channel_has_no_negative_variance() -> None:
    assert channel_moments(torch.full((64, 2, 9, 9), 1234.567))[1].min() >= 0


def test_the_input_loss_is_zero_for_normalised_pixels_and_grows_from_there() -> None:
    x = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), unbiased=False, keepdim=True)
    assert input_loss(x).item() == pytest.approx(0, abs=1e-6)
    assert input_loss(x + 1).item() == pytest.approx(1, rel=1e-3)
    assert input_loss(x * math.sqrt(2)).item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("loss", ["published_loss", "normalised_loss"])
def test_a_loss_sends_a_finite_gradient_to_the_images(loss: str) -> None:
    net, x = random_network(), torch.zeros(4, 2, 4, 4, requires_grad=True)  # constant: the hardest point of a norm
    with watch_batch_norm(net) as found:
        net(x)
        getattr(found, loss)().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_no_hook_outlives_the_block_even_after_an_exception() -> None:
    net = random_network()
    found = observed(net, torch.zeros(4, 2, 4, 4))
    assert list(found.moments) == batch_norm_layers(net)
    with pytest.raises(RuntimeError):
        observed(net, torch.zeros(4, 99, 4, 4))  # wrong number of channels
    assert not any(layer._forward_pre_hooks or "forward" in vars(layer) for layer in net.modules())
    found.moments.clear()
    net(torch.zeros(4, 2, 4, 4))
    assert not found.moments


def test_an_interruption_while_layers_are_replaced_is_raised_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2)).eval()
    fused_forward = statistics.fused_forward

    def interrupted(layer: nn.BatchNorm2d, seen: statistics.BatchStatistics) -> Any:
        if layer is net[1]:
            raise KeyboardInterrupt
        return fused_forward(layer, seen)

    monkeypatch.setattr(statistics, "fused_forward", interrupted)
    with pytest.raises(KeyboardInterrupt), statistics.watch_batch_norm(net):
        pytest.fail("the block was entered")
    assert all("forward" not in layer.__dict__ for layer in net)


def test_every_kind_of_batch_norm_with_running_statistics_is_seen() -> None:
    class OurNorm(nn.BatchNorm2d):
        pass

    kinds = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2), OurNorm(2)]
    unseen = [nn.BatchNorm2d(2, track_running_stats=False), nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.InstanceNorm2d(2)]
    assert batch_norm_layers(nn.ModuleList([*kinds, *unseen])) == kinds


def test_a_sync_batch_norm_is_measured_like_a_plain_one() -> None:
    plain, x = random_network(), torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(6))
    expected = observed(plain, x).published_loss()
    torch.testing.assert_close(observed(nn.SyncBatchNorm.convert_sync_batchnorm(plain), x).published_loss(), expected)


def test_a_single_layer_of_weight_zero_gives_zero() -> None:
    net = random_network()[:2].eval()
    found = observed(net, torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(1)))
    assert found.normalised_loss(first_layer_weight=0.0) == 0.0


LAYOUTS = (torch.contiguous_format, torch.channels_last)


def plain_loss(net: nn.Sequential, x: Tensor, loss: str) -> Tensor:
    """The statistics loss, and a loss of the outputs, by torch's own layers and autograd."""
    found = BatchStatistics()
    for module in net:
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            dims = [d for d in range(x.dim()) if d != 1]
            found.moments[module] = (x.mean(dims), x.var(dims, unbiased=False))
        x = module(x)
    return getattr(found, loss)(3.0) + x.square().mean()


@pytest.mark.parametrize("loss", ["published_loss", "normalised_loss"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fused_gradients_are_those_of_float64(
    loss: str, dtype: torch.dtype, tolerance: float, layout: torch.memory_format
) -> None:
    net, x = random_network(), torch.randn(16, 2, 4, 4, generator=torch.Generator().manual_seed(7))
    net, x = net.to(memory_format=layout), x.contiguous(memory_format=layout)
    exact = x.double().requires_grad_(True)
    plain_loss(random_network().double(), exact, loss).backward()
    net.requires_grad_(False)
    ours = x.clone().requires_grad_(True)
    with watch_batch_norm(net) as found, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        out = net(ours)
    (getattr(found, loss)(3.0) + out.float().square().mean()).backward()
    assert exact.grad is not None
    assert ours.grad is not None
    assert ((ours.grad - exact.grad).norm() / exact.grad.norm()).item() < tolerance


@pytest.mark.parametrize("layout", LAYOUTS)
def test_statistics_of_bfloat16_maps_are_float32(layout: torch.memory_format) -> None:
    x = 3 + torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(11))
    x = x.to(torch.bfloat16).contiguous(memory_format=layout)
    y, mean, variance = FusedBatchNorm.apply(x, torch.tensor([0.5, -2.0, 1.0]), torch.tensor([1.0, 0.0, 3.0]))
    assert (y.dtype, mean.dtype, variance.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    torch.testing.assert_close(mean, x.float().mean((0, 2, 3)), rtol=1e-4, atol=0)
    torch.testing.assert_close(variance, x.float().var((0, 2, 3), unbiased=False), rtol=2e-2, atol=0)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_fused_layer_passes_a_gradient_check(layout: torch.memory_format, stride: int) -> None:
    x = torch.randn(5, 3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    x = x.contiguous(memory_format=layout).requires_grad_(True)
    scale, shift = (
        torch.tensor([0.5, -2.0, 1.0], dtype=torch.float64),
        torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64),
    )
    assert torch.autograd.gradcheck(lambda x: FusedBatchNorm.apply(x, scale, shift, stride), (x,))


def test_a_watched_network_gives_the_outputs_of_the_plain_one() -> None:
    net, x = random_network(), torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(9))
    with watch_batch_norm(net):
        watched = net(x)
    torch.testing.assert_close(watched, net(x))


def test_a_layer_in_training_or_of_a_subclass_keeps_its_forward() -> None:
    class Doubling(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    x = torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(10))
    for layer in (Doubling(2).eval(), nn.BatchNorm2d(2).train()):
        expected = layer(x)
        with watch_batch_norm(layer) as found:
            torch.testing.assert_close(layer(x), expected)
        torch.testing.assert_close(found.moments[layer][0], x.mean((0, 2, 3)))


def test_two_watchers_of_one_network_both_get_the_statistics() -> None:
    net, x = random_network(), torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(11))
    with watch_batch_norm(net) as outer:
        with watch_batch_norm(net) as inner:
            net(x)
        net(2 * x)
    assert len(inner.moments) == len(outer.moments) == 2
    assert not any("forward" in vars(layer) for layer in net.modules())


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_sampled_statistics_are_those_of_every_nth_row_of_large_maps(layout: torch.memory_format, fused: bool) -> None:
    net = nn.Sequential(nn.BatchNorm2d(3) if fused else Own(3), nn.AvgPool2d(2), nn.BatchNorm2d(3)).eval()
    x = torch.randn(4, 3, 2 * ROWS, 5, generator=torch.Generator().manual_seed(12)).contiguous(memory_format=layout)
    with torch.no_grad(), watch_batch_norm(net, sampled=True) as found:
        out = net(x)
    torch.testing.assert_close(out, net(x))
    first, second = found.moments.values()
    torch.testing.assert_close(first, channel_moments(x[:, :, ::2]))
    torch.testing.assert_close(second, channel_moments(nn.Sequential(*net[:2])(x)))  # 14 rows


def test_a_hook_records_vectors_too() -> None:
    layer, x = OwnOfVectors(3).eval(), torch.randn(5, 3)
    (found,) = observed(layer, x).moments.values()
    torch.testing.assert_close(found, channel_moments(x))


class OwnOfVectors(nn.BatchNorm1d):
    """A layer of a user's own class for vectors."""


class Own(nn.BatchNorm2d):
    """A layer of a user's own class, which is watched by a hook."""


def test_only_shifted_photographs_are_sampled() -> None:
    small, large = (
        Classifier(nn.Flatten(), digits_card(input_shape=(3, side, side), mean=(0.5,) * 3, std=(0.5,) * 3))
        for side in (32, 64)
    )
    assert may_sample(large, PHOTO)
    assert not may_sample(small, PHOTO)
    assert not any(may_sample(large, replace(PHOTO, **change)) for change in ({"roll": 0.0}, {"bn_loss": "published"}))
