"""Teachers without batch norm: their layers are found, and what takes the place of the statistics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.image_norms import watch_image_norms
from synth.methods import deepinversion, generator
from synth.methods.deepinversion_settings import DeepInversionSettings
from synth.methods.dropped_patches import Dropping, find_blocks
from synth.methods.natural import ALIKE, natural_noise
from synth.methods.patches import BANDWIDTH, ENDS, POINTS, similarity_entropy
from tests.runs import digits_card

COLOUR = digits_card(input_shape=(3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)
SETTINGS = DeepInversionSettings(steps=2, batch_size=8)
LABELS = torch.arange(8)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class SubclassOfLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, H, W), as many libraries have it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class OwnNorm(nn.Module):
    """The same without a class of PyTorch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.linspace(0.5, 2, channels))
        self.b = nn.Parameter(torch.linspace(-1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, 1, keepdim=True, correction=0)
        return (x - mean) / (variance + 1e-5).sqrt() * self.g[:, None, None] + self.b[:, None, None]


class Scale(nn.Module):
    """A layer with a vector of weights that normalises nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma[:, None, None]


class Tokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


def network(*layers: nn.Module) -> Classifier:
    """A frozen classifier of 16 px colour images with these layers of 8 channels after a convolution to 4x4 places."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), *layers, nn.Flatten(), nn.LazyLinear(10))
        net(torch.zeros(2, 3, 16, 16))
    return Classifier(net, COLOUR).freeze()


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [Tokens(), nn.LayerNorm(8)],
        lambda: [nn.GroupNorm(2, 8)],
        lambda: [SubclassOfLayerNorm(8)],
        lambda: [OwnNorm(8)],
    ],
    ids=["LayerNorm of tokens", "GroupNorm", "LayerNorm2d", "own code"],
)
def test_layers_that_normalise_each_image_are_found_by_what_they_do(layers: Callable[[], list[nn.Module]]) -> None:
    model = network(*layers(), Scale(8) if len(layers()) == 1 else nn.Identity())
    with watch_image_norms(model.net) as norms:
        model.logits(random(2, 3, 16, 16))
    assert [tokens.shape for tokens in norms.tokens.values()] == [(2, 16, 8)]
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_layers_of_a_librarys_transformer_are_found(library: str) -> None:
    net = vision_transformer(library)
    with torch.no_grad(), watch_image_norms(net.eval()) as norms:
        net(random(2, 3, 16, 16))
    assert [tokens.shape for tokens in norms.tokens.values()] == [(2, 17, 8)] * 5  # two of each block and the last


def vision_transformer(library: str) -> nn.Module:
    """Two blocks of 8 channels on 16 patches and a class token."""
    if library == "torchvision":
        from torchvision.models import VisionTransformer

        net = VisionTransformer(16, 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=5)
        nn.init.normal_(net.heads.head.weight)  # it starts at 0, and so has no gradient
        return net
    if library == "timm":
        timm = pytest.importorskip("timm.models.vision_transformer")
        return timm.VisionTransformer(16, 4, embed_dim=8, depth=2, num_heads=2, num_classes=5)
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.ViTForImageClassification(transformers.ViTConfig(image_size=16, patch_size=4, **sizes))


def transformer(library: str = "torchvision") -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(vision_transformer(library), dataclasses.replace(COLOUR, class_names=tuple("abcde"))).freeze()


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers"])
def test_the_blocks_of_a_librarys_transformer_compute_any_number_of_patches(library: str) -> None:
    model = transformer(library)
    model = model if library != "transformers" else Classifier(Logits(model.net), model.card).freeze()
    blocks = find_blocks(model)
    assert blocks is not None
    assert (blocks.rows, blocks.columns, blocks.prefix) == (4, 4, 1)
    assert not any(module._forward_pre_hooks for module in model.modules())


class Logits(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).logits


def test_dropped_patches_are_not_computed_and_keep_their_pixels() -> None:
    model = transformer()
    blocks = find_blocks(model)
    assert blocks is not None
    dropping = Dropping(blocks, share=0.75)
    x = random(2, 3, 16, 16).requires_grad_(True)
    with dropping.hooked(), watch_image_norms(model.net) as norms:
        for done in (0.1, 0.25, 0.5, 0.75):
            x.grad = None
            model.logits(dropping.look(x, lambda images: images.flip(3))).square().sum().backward()
            dropping.learn(x, done)
    assert [tokens.shape[1] for tokens in norms.tokens.values()] == [5] * 5  # the class token and a quarter of 16
    assert x.grad is not None
    moved = x.grad.abs().sum(1).view(2, 4, 4, 4, 4).sum((2, 4)) > 0
    assert moved.flatten(1).sum(1).tolist() == [4, 4]


def test_dropped_patches_stay_dropped_at_another_resolution() -> None:
    settings = dataclasses.replace(SETTINGS, steps=10, coarse_steps=6, drop_patches=0.75)
    masks: list[Tensor] = []

    class Noted(Dropping):
        def learn(self, x: Tensor, done: float) -> None:
            super().learn(x, done)
            if self.mask is not None:
                masks.append(self.mask)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(deepinversion, "Dropping", Noted)
        deepinversion.synthesise(transformer(), LABELS % 5, settings, torch.Generator().manual_seed(0))
    assert [mask.shape[-1] for mask in masks] == [8] * 6 + [16] * 4
    coarse, whole = masks[5], masks[6]
    assert coarse.mean().item() == pytest.approx(0.25)
    assert torch.equal(torch.nn.functional.interpolate(coarse, size=(16, 16)), whole)


def test_patches_of_a_network_without_such_layers_are_refused() -> None:
    batch_normed = network(nn.BatchNorm2d(8))
    with pytest.raises(UsageError, match=r"--patches has no effect on .*: leave it out"):
        deepinversion.check(batch_normed, dataclasses.replace(SETTINGS, patches=1.0))
    with pytest.raises(UsageError, match=r"--patches has no effect on .*: leave it out"):
        generator.check(batch_normed, dataclasses.replace(generator.SETTINGS(), patches=1.0))
    deepinversion.check(transformer(), dataclasses.replace(SETTINGS, patches=1.0))


def test_a_network_that_needs_all_patches_refuses_to_drop_them() -> None:
    with pytest.raises(UserError, match="leave out --drop-patches"):
        deepinversion.check(network(nn.GroupNorm(2, 8)), dataclasses.replace(SETTINGS, drop_patches=0.5))
    settings = dataclasses.replace(SETTINGS, steps=4, drop_patches=0.5)
    deepinversion.check(transformer(), settings)
    images = deepinversion.synthesise(transformer(), LABELS % 5, settings, torch.Generator().manual_seed(0))
    assert images.shape == (8, 3, 16, 16)


def test_the_entropy_is_that_of_a_kernel_density_of_all_pairs() -> None:
    tokens = random(2, 6, 5)
    expected = 0.0
    for image in tokens:
        pairs = [torch.cosine_similarity(image[i], image[j], 0).item() for i in range(6) for j in range(i + 1, 6)]
        step = 2 * ENDS / (POINTS - 1)
        values = []
        for k in range(POINTS):
            kernels = [math.exp(-0.5 * ((p - (-ENDS + k * step)) / BANDWIDTH) ** 2) for p in pairs]
            f = sum(kernels) / len(pairs) / (BANDWIDTH * math.sqrt(2 * math.pi))
            values.append(-f * math.log(f + 1e-12))
        expected += step * (sum(values) - 0.5 * (values[0] + values[-1])) / 2
    assert similarity_entropy(tokens).item() == pytest.approx(expected, abs=1e-5)


def test_tokens_of_two_kinds_have_more_entropy_than_tokens_that_are_all_alike() -> None:
    alike = torch.ones(1, 10, 4)
    two_kinds = torch.cat([alike[:, :5], alike[:, :5] * torch.tensor([1.0, -1.0, 1.0, -1.0])], 1)
    assert similarity_entropy(two_kinds) > similarity_entropy(alike) + 0.3


def test_natural_noise_has_the_spectrum_and_the_colours_of_photographs() -> None:
    x = natural_noise(random(64, 3, 32, 32))
    assert x.square().mean().item() == pytest.approx(1, abs=1e-4)
    power = torch.fft.rfft2(x).abs().square().mean((0, 1))[0]
    assert (power[2] / power[4]).item() == pytest.approx(4, rel=0.5)
    assert (power[4] / power[8]).item() == pytest.approx(4, rel=0.5)
    assert torch.corrcoef(x.transpose(0, 1).flatten(1))[0, 1].item() == pytest.approx(ALIKE, abs=0.05)


def test_a_teacher_with_batch_norm_and_layer_norm_uses_both() -> None:
    hybrid = network(nn.BatchNorm2d(8), nn.ReLU(), nn.GroupNorm(2, 8))

    def images(**changes: float) -> Tensor:
        settings = dataclasses.replace(SETTINGS, **changes)  # type: ignore[arg-type]
        return deepinversion.synthesise(hybrid, LABELS, settings, torch.Generator().manual_seed(0))

    assert not torch.equal(images(), images(patches=1.0))
    assert not torch.equal(images(patches=1.0), images(patches=1.0, bn=0.0))
    assert deepinversion.instead(hybrid, SETTINGS) == ""


def test_a_teacher_without_batch_norm_works_by_default_and_the_line_says_what_is_used() -> None:
    model = network(nn.GroupNorm(2, 8))
    deepinversion.check(model, SETTINGS)
    images = deepinversion.synthesise(model, LABELS, SETTINGS, torch.Generator().manual_seed(0))
    assert images.shape == (8, 3, 16, 16)
    line = deepinversion.instead(model, SETTINGS)
    assert "has no batch norm" in line
    assert "spectrum of photographs" in line
    with_patches = dataclasses.replace(SETTINGS, patches=1.0)
    assert "patch-similarity entropy" in deepinversion.instead(model, with_patches)
    assert "patch-similarity entropy" not in deepinversion.instead(network(nn.ReLU()), with_patches)
