"""The small architectures that the data-free literature uses, and a finder of any architecture by its name."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from synth.basics.errors import UsageError


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with ReLU, max pooling and batch norm after every hidden layer.

    Takes (N, C, 28, 28) or (N, C, 32, 32), returns logits (N, K). 62 thousand parameters at C = 1, K = 10.
    """

    def __init__(self, in_channels: int, num_classes: int, image_size: int = 28, width: float = 1.0) -> None:
        super().__init__()
        if image_size not in (28, 32):
            raise UsageError(
                f"lenet5 takes 28x28 or 32x32 images, not {image_size}x{image_size}: choose another --arch"
            )
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


class AllCNN(nn.Module):
    """All-CNN-C (Springenberg et al. 2015) as the unlearning papers use it: 3x3 Conv-BN-ReLU of 96, 96, 192 (stride 2),
    192, 192, 192 (stride 2), 192, then 1x1 192, average pool and a linear layer. 1.6 million parameters at width 1.
    """

    def __init__(self, in_channels: int, num_classes: int, image_size: int = 32, width: float = 1.0) -> None:
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


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


class ResNet20(nn.Module):
    """The 20-layer residual network for 32x32 images (He et al. 2016, section 4.2). 0.27 million parameters at width 1."""

    def __init__(self, in_channels: int, num_classes: int, image_size: int = 32, width: float = 1.0) -> None:
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


# Of torchvision's models, those with further outputs in training, and how the weights of these heads begin.
AUXILIARY_HEADS: dict[str, tuple[str, ...]] = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
OURS = {"lenet5": LeNet5, "allcnn": AllCNN, "resnet20": ResNet20}


def build(architecture: str, in_channels: int, num_classes: int, image_size: int, width: float = 1.0) -> nn.Module:
    """An untrained network that maps (N, in_channels, image_size, image_size) to logits (N, num_classes).

    `architecture` is one of `OURS`, the name of a torchvision classification model, or `module:function` for a
    callable of the user's own that takes (in_channels, num_classes). `width` scales the channels of ours.
    Auxiliary heads are left out, so that every network has one output in training too.
    """
    if architecture in OURS:
        return OURS[architecture](in_channels, num_classes, image_size, width)
    if width != 1.0:
        raise UsageError(f"--width scales {', '.join(OURS)} only, not {architecture}")
    if ":" in architecture:
        return users_own(architecture, in_channels, num_classes)
    from torchvision import models

    if architecture not in models.list_models(module=models):
        raise UsageError(
            f"unknown architecture '{architecture}': choose one of {', '.join(OURS)}, "
            "a torchvision classification model (resnet18, ...), or your own as module:function"
        )
    if in_channels != 3:
        raise UsageError(
            f"torchvision's {architecture} takes 3-channel images, these have {in_channels}: "
            f"choose one of {', '.join(OURS)}, or your own as module:function"
        )
    plain = {"aux_logits": False, "init_weights": True} if architecture in AUXILIARY_HEADS else {}
    return models.get_model(architecture, weights=None, num_classes=num_classes, **plain)


def users_own(architecture: str, in_channels: int, num_classes: int) -> nn.Module:
    """What the callable that `module:function` names makes. Callers come here where the user has named it, never by a file alone."""
    module_name, _, function_name = architecture.partition(":")
    with working_folder_searched():
        try:
            function = getattr(importlib.import_module(module_name), function_name)
        except Exception as error:  # a module of the user's may raise anything
            raise UsageError(
                f"cannot find the architecture '{architecture}' ({type(error).__name__}: {error}): mend the module, or name another"
            ) from error
        try:
            net = function(in_channels, num_classes)
        except Exception as error:
            raise UsageError(
                f"the architecture '{architecture}', called with ({in_channels}, {num_classes}) for channels and classes, "
                f"failed: {error}"
            ) from error
    if not isinstance(net, nn.Module):
        raise UsageError(f"the architecture '{architecture}' made a {type(net).__name__}, not a torch.nn.Module")
    return net


@contextmanager
def working_folder_searched() -> Iterator[None]:
    """Modules are looked for in the working folder too, after all other places; an installed script's Python doesn't by itself."""
    folder = os.getcwd()
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        if folder in sys.path:  # the module may have changed the path
            sys.path.remove(folder)
