"""LeNet-5 for 28x28 and 32x32 images."""

from __future__ import annotations

from torch import Tensor, nn

from synth.basics.errors import UsageError


def build(in_channels: int, num_classes: int, image_size: int, width: float) -> nn.Module:
    """The network. Raises UsageError for images of another size."""
    if image_size not in (28, 32):
        raise UsageError(f"lenet5 takes 28x28 or 32x32 images, not {image_size}x{image_size}: choose another network")
    return LeNet5(in_channels, num_classes, image_size, width)


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with ReLU, max pooling and batch norm after every hidden layer.

    Takes (N, C, 28, 28) or (N, C, 32, 32), returns logits (N, K). 62 thousand parameters at C = 1, K = 10.
    """

    def __init__(self, in_channels: int, num_classes: int, image_size: int, width: float) -> None:
        super().__init__()
        c1, c2, c3, f4 = (max(1, round(n * width)) for n in (6, 16, 120, 84))
        pad = 2 if image_size == 28 else 0
        self.features = nn.Sequential(
            *(nn.Conv2d(in_channels, c1, 5, padding=pad), nn.BatchNorm2d(c1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(c1, c2, 5), nn.BatchNorm2d(c2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(c2, c3, 5), nn.BatchNorm2d(c3), nn.ReLU()),
            nn.Flatten(),
            *(nn.Linear(c3, f4), nn.BatchNorm1d(f4), nn.ReLU()),
        )
        self.classifier = nn.Linear(f4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
