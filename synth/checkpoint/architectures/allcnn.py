"""All-CNN-C."""

from __future__ import annotations

from torch import Tensor, nn

from synth.checkpoint.blocks import conv_bn_relu


def build(in_channels: int, num_classes: int, image_size: int, width: float) -> nn.Module:
    """The network, for images of any size from 8x8 pixels."""
    return AllCNN(in_channels, num_classes, width)


class AllCNN(nn.Module):
    """All-CNN-C (Springenberg et al. 2015) as the unlearning papers use it. 1.6 million parameters at width 1.

    3x3 convolutions of 96, 96, 192 (stride 2), 192, 192, 192 (stride 2) and 192 channels and a 1x1 convolution of 192,
    each with batch norm and ReLU; then an average pool and a linear layer. Takes (N, C, S, S), returns logits (N, K).
    """

    def __init__(self, in_channels: int, num_classes: int, width: float) -> None:
        super().__init__()
        narrow, wide = max(1, round(96 * width)), max(1, round(192 * width))
        layers: list[nn.Module] = []
        before = in_channels
        for channels, kernel, stride in (
            *((narrow, 3, 1), (narrow, 3, 1), (wide, 3, 2)),
            *((wide, 3, 1), (wide, 3, 1), (wide, 3, 2)),
            *((wide, 3, 1), (wide, 1, 1)),
        ):
            layers.append(conv_bn_relu(before, channels, kernel, stride))
            before = channels
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(wide, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
