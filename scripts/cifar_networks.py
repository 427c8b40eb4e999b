"""The field's network for 32 px images, for scripts/reproduce regime."""

from __future__ import annotations

from torch import nn
from torchvision.models import resnet18 as for_photographs


def resnet18(num_classes: int) -> nn.Module:
    """ResNet-18 whose first layer keeps the 32 pixels: 3x3 with stride 1, and no pooling after it."""
    network = for_photographs(num_classes=num_classes)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network
