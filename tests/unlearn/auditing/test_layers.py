"""What the layer-wise probe sees of a layer: its channels, averaged over pixels or tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import convnext_tiny, swin_t
from torchvision.models.vision_transformer import VisionTransformer

from synth.checkpoint.classifier import Classifier
from tests.runs import digits_card
from unlearn.auditing.measures.layers import DEPTHS, layers_at, outputs_of, pooled
from unlearn.methods.channels import channel_axis


def small_vit() -> nn.Module:
    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=12, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=10
    )


@pytest.mark.parametrize(
    ("network", "widths"),
    [
        (small_vit, {24, 48}),
        (lambda: convnext_tiny(num_classes=10), {192, 384, 768, 1536}),
        (lambda: swin_t(num_classes=10), None),
    ],
)
def test_the_probe_sees_channels_of_every_kind_of_network(network: object, widths: set[int] | None) -> None:
    assert callable(network)
    card = digits_card(architecture="tests:network", input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    model = Classifier(network(), card).freeze()
    layers = layers_at(model)
    found = outputs_of(model, layers, torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8))
    assert [len(features) for features in found] == [5] * len(DEPTHS)
    assert all(features.shape[1] in (widths or {96, 192, 288, 384, 576, 768, 1152, 1536, 3072}) for features in found)


def test_maps_are_averaged_over_pixels_wherever_their_channels_are() -> None:
    first, last = torch.rand(2, 6, 3, 4), torch.rand(2, 3, 4, 6)
    assert torch.allclose(pooled(nn.Conv2d(5, 6, 3), first), first.mean((2, 3)))
    assert torch.allclose(pooled(nn.Linear(5, 6), last), last.mean((1, 2)))
    assert torch.allclose(pooled(nn.Linear(5, 6), torch.ones(2, 7, 6)), torch.ones(2, 6))
    assert torch.equal(pooled(nn.Linear(5, 6), last[:, 0, 0]), last[:, 0, 0])
    assert channel_axis(nn.Linear(5, 3), torch.rand(2, 3, 4, 3)) == 3  # as many rows as channels
    turned = nn.MultiheadAttention(6, 2)
    assert pooled(turned, (torch.rand(7, 2, 6), torch.rand(2, 7, 7))).shape == (2, 6)
