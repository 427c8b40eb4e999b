"""Imports in one line, and small networks of kinds that people bring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synth.checkpoint.building import build
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint
from synth.checkpoint.importing.card_options import card_for, facts_from_options
from synth.checkpoint.importing.class_names import names_from_option
from synth.checkpoint.importing.import_checkpoint import ImportRequest, import_checkpoint

LENET5 = {"architecture": "lenet5", "input_shape": "1,28,28", "classes": "10", "mean": "0.13", "std": "0.31"}
SMALL = {"input_shape": "3,16,16", "classes": "4", "mean": "0.5", "std": "0.25"}  # for the networks below


def card(options: Mapping[str, str]) -> ModelCard:
    """The card that the options of the command line describe."""
    given = dict(options)
    architecture = given.pop("architecture")
    names = names_from_option(given.pop("classes"))
    return card_for(architecture, 1.0, facts_from_options(class_names=names, **given))


def request(file: Path | None, options: Mapping[str, str], **more: Any) -> ImportRequest:
    given = dict(options)
    names = names_from_option(given.pop("classes")) if "classes" in given else None
    facts = facts_from_options(given.pop("input_shape", None), names, given.pop("mean", None), given.pop("std", None))
    return ImportRequest(file=file, facts=facts, **given, **more)


def imported(content: object, folder: Path, options: Mapping[str, str] = LENET5, **more: Any) -> tuple[Classifier, str]:
    """The classifier that the import of the content writes and reads again, and what the import says.

    `content` is the path of a file, or what torch.save writes into one, or None for an import without a file.
    """
    file = content if isinstance(content, Path) else folder / "model.pt"
    if content is not None and not isinstance(content, Path):
        torch.save(content, file)
    lines: list[str] = []
    asked = request(file if content is not None else None, options, **more)
    written = import_checkpoint(asked, folder / "teacher.safetensors", lines.append)
    model = load_checkpoint(folder / "teacher.safetensors", written.card.architecture)
    assert model.digest == written.digest
    return model, "\n".join(lines)


def lenet5_state() -> dict[str, Tensor]:
    """Weights of a LeNet5 for digits, with running statistics of its own."""
    torch.manual_seed(0)
    net = build("lenet5", 1, 10, 28).train()
    with torch.no_grad():
        net(torch.rand(16, 1, 28, 28))
    return dict(net.state_dict())


def same_weights(model: Classifier, state: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, model.net.state_dict()[key]) for key, value in state.items())


class Body(nn.Sequential):
    """Three convolutions and the mean over places: images (N, C, H, W) to features (N, 16)."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            *(nn.Conv2d(channels, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )


class HasModule(nn.Module):
    """A network that has a part called `module`."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.module = Body(channels)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.module(x))


class DropPath(nn.Module):
    """A network whose constructor reads numbers out of tensors, as Swin's and ConvNeXt's does."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]
        self.net = nn.Sequential(Body(channels), nn.Linear(16, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Ends(nn.Module):
    """A network with an end of its own: a softmax, a sigmoid, a tuple, a dict."""

    def __init__(self, end: Any, outputs: int) -> None:
        super().__init__()
        self.body, self.fc, self.end = Body(3), nn.Linear(16, outputs), end

    def forward(self, x: Tensor) -> Any:
        features = self.body(x)
        return self.end(self.fc(features), features)


def softmax_net(num_classes: int) -> nn.Module:
    return Ends(lambda z, f: z.softmax(1), num_classes)


def log_softmax_net(num_classes: int) -> nn.Module:
    return Ends(lambda z, f: z.log_softmax(1), num_classes)


def sigmoid_net(num_classes: int) -> nn.Module:
    return Ends(lambda z, f: z.sigmoid(), num_classes)


def tuple_net(num_classes: int) -> nn.Module:
    return Ends(lambda z, f: (f, z), num_classes)


def dict_net(num_classes: int) -> nn.Module:
    return Ends(lambda z, f: {"features": f, "out": z}, num_classes)


def one_logit_net(num_classes: int) -> nn.Module:
    return Ends(lambda z, f: z, num_classes)


def one_sigmoid_net() -> nn.Module:
    """A binary network with a fixed head whose output has no axis of classes."""
    return Ends(lambda z, f: z.sigmoid().squeeze(1), 1)


class Cosine(nn.Module):
    """A head that compares directions, as in metric learning."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, 16))

    def forward(self, x: Tensor) -> Tensor:
        return 16 * nn.functional.linear(nn.functional.normalize(x), nn.functional.normalize(self.weight))


def cosine_net(num_classes: int) -> nn.Module:
    return nn.Sequential(Body(3), Cosine(num_classes))


class AuxiliaryInTraining(nn.Module):
    """A network with a second output in training only, as GoogLeNet."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body, self.fc, self.aux = Body(3), nn.Linear(16, num_classes), nn.Linear(16, num_classes)

    def forward(self, x: Tensor) -> Any:
        features = self.body(x)
        return (self.fc(features), self.aux(features)) if self.training else self.fc(features)


def no_logits_net(num_classes: int) -> nn.Module:
    return Ends(lambda z, f: (f,), num_classes)


def fixed_head() -> nn.Module:
    """A function of no parameters, as of a network with a fixed head."""
    return Ends(lambda z, f: z, 4)
