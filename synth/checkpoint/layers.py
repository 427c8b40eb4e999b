"""Finding layers of a network: the last linear layer with its features, and the layer that makes the logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier


def last_linear(net: nn.Module) -> nn.Linear | None:
    """The last linear layer in order of registration, or None. Its inputs are the network's features."""
    return next((module for module in reversed(list(net.modules())) if isinstance(module, nn.Linear)), None)


@contextmanager
def watch_features(net: nn.Module) -> Iterator[list[Tensor]]:
    """A list with the features (N, D) of the last forward pass: the inputs of the last linear layer.

    Raises ValueError if the network has no linear layer.
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
    """The layer that makes the logits: the last linear layer or convolution with one output per class.

    Raises UserError if there is none.
    """
    outputs = model.card.num_classes if model.card.target is None else model.card.outputs
    layers = [
        m
        for m in model.modules()
        if (isinstance(m, nn.Linear) and m.out_features == outputs)
        or (isinstance(m, nn.Conv2d) and m.out_channels == outputs)
    ]
    if not layers:
        raise UserError(
            f"{model.card.architecture} has no linear layer with one output per class: use another baseline"
        )
    return layers[-1]
