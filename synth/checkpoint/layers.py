"""Layers of a network that other code asks for: the one that makes the logits, its features, the cost of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier


def last_linear(net: nn.Module) -> nn.Linear | None:
    """The last linear layer in the order of registration, whose inputs are a network's features; None where there is none."""
    return next((module for module in reversed(list(net.modules())) if isinstance(module, nn.Linear)), None)


@contextmanager
def watch_features(net: nn.Module) -> Iterator[list[Tensor]]:
    """The inputs (N, D) of the network's last linear layer, one a forward pass, inside the `with` block.

    Raises ValueError where the network has no linear layer.
    """
    layer = last_linear(net)
    if layer is None:
        raise ValueError("the network has no linear layer")
    features: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features[:] = [inputs[0].flatten(1)]

    handle = layer.register_forward_pre_hook(keep)
    try:
        yield features
    finally:
        handle.remove()


def last_layer(model: Classifier) -> nn.Linear | nn.Conv2d:
    """The layer that makes the logits: the last linear or 1x1 convolution layer with one output a class."""
    layers = [
        m
        for m in model.modules()
        if (isinstance(m, nn.Linear) and m.out_features == model.card.num_classes)
        or (isinstance(m, nn.Conv2d) and m.out_channels == model.card.num_classes)
    ]
    if not layers:
        raise UserError(f"{model.card.architecture} has no linear layer with one output a class: use another baseline")
    return layers[-1]
