"""Random gains on the channels where the kept layers end, for the teacher and the student alike.

The student's new layers learn the teacher's later layers as a function of the features that the kept ones give.
Synthetic images give other features than real ones, most of all of another strength per channel. A gain for each
channel and view spreads the features, and the teacher answers on the very features that the student sees. So the new
layers learn the function on more than the features of synthetic images, as a student learns more from mixed images
(function matching, Beyer et al. 2022; randomised domains, Tobin et al. 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from synth.basics.errors import UsageError
from synth.checkpoint.classifier import Classifier, untouched
from unlearn.methods.channels import channel_axis


class FeatureNoise:
    """Gains max(0, 1 + σ n), n ~ N(0, 1), on the output of the layer `name`: maps (N, C, H, W) or (N, H, W, C), tokens
    (N, T, C) or vectors (N, C).

    Raises UsageError if the layer gives neither.
    """

    def __init__(self, model: Classifier, name: str, spread: float) -> None:
        self.name, self.spread, self.channels = name, spread, channels_of(model, name)

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """The gains of the views of a batch, (N, C), on the CPU."""
        return (1 + self.spread * torch.randn(count, self.channels, generator=rng)).clamp_min(0)

    @contextmanager
    def on(self, model: Classifier, gains: Tensor) -> Iterator[None]:
        """Forward passes of N views in the `with` block have these gains (N, C)."""

        def scale(module: nn.Module, inputs: object, features: Tensor) -> Tensor:
            return features * spread_over(gains, features, channel_axis(module, features)).to(features)

        handle = model.net.get_submodule(self.name).register_forward_hook(scale)
        try:
            yield
        finally:
            handle.remove()


def spread_over(gains: Tensor, features: Tensor, axis: int) -> Tensor:
    """Gains (N, C) in the shape that broadcasts over features whose channels are at `axis`."""
    return gains.reshape([features.shape[at] if at in (0, axis) else 1 for at in range(features.dim())])


@torch.no_grad()
def channels_of(model: Classifier, name: str) -> int:
    """The channels of the output of the layer `name`. Raises UsageError if the output is no tensor of features."""
    outputs: list[object] = []
    layer = model.net.get_submodule(name)
    handle = layer.register_forward_hook(lambda *given: outputs.append(given[2]))
    try:
        with untouched(model.net):
            model(torch.zeros(2, *model.card.input_shape, device=model.mean.device))
    finally:
        handle.remove()
    found = outputs[0]
    if not isinstance(found, Tensor) or not 2 <= found.dim() <= 4:
        raise UsageError(f"--feature-noise: the layer {name} gives no features of one shape: keep up to another layer")
    return found.shape[channel_axis(layer, found)]
