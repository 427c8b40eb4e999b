"""ResNet-20 for 32x32 images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from synth.checkpoint.blocks import conv_bn_relu


def build(in_channels: int, num_classes: int, image_size: int, width: float) -> nn.Module:
    """The network, for images of any size."""
    return ResNet20(in_channels, num_classes, width)


class ResNet20(nn.Module):
    """The 20-layer residual network for 32x32 images (He et al. 2016, section 4.2). 0.27 million parameters."""

    def __init__(self, in_channels: int, num_classes: int, width: float) -> None:
        super().__init__()
        stages = [max(1, round(n * width)) for n in (16, 32, 64)]
        layers: list[nn.Module] = [conv_bn_relu(in_channels, stages[0], 3, 1)]
        before = stages[0]
        for index, channels in enumerate(stages):
            for block in range(3):
                layers.append(ResidualBlock(before, channels, stride=2 if index > 0 and block == 0 else 1))
                before = channels
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(before, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by a 1x1 convolution where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn_relu(in_channels, out_channels, 3, stride),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        same = stride == 1 and in_channels == out_channels
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))
