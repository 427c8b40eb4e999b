"""Depthwise convolutions, as in MobileNet, EfficientNet and ConvNeXt, whose gradients in bfloat16 are slow on CPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from synth.checkpoint.replaced import replaced


def slow_depthwise(net: nn.Module) -> list[nn.Conv2d]:
    """The depthwise convolutions whose gradient is faster in float32.

    Those are all whose weights are trained, and else the ones that shrink their maps.
    """
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    depthwise = [layer for layer in layers if layer.groups == layer.in_channels > 1]
    return [layer for layer in depthwise if max(layer.stride) > 1 or layer.weight.requires_grad]


@contextmanager
def depthwise_in_float32(net: nn.Module) -> Iterator[None]:
    """Compute these layers in float32 inside the `with` block, although autocast is on; their maps keep their type.

    Their forward pass takes the same time in both types. With oneDNN in PyTorch 2.14 on a core with AVX-512 BF16, the
    gradient of a strided layer with respect to its input takes 12 to 18 times as long in bfloat16 as in float32 (62 ms
    and 4.5 ms), which is half of the backward pass of an EfficientNet. With the gradient of the weights too, a training
    step takes 1.3 to 2.5 times as long in bfloat16 as with these layers in float32.
    """
    with replaced({layer: in_float32(layer.forward) for layer in slow_depthwise(net)}):
        yield


def in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def wide(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float()).to(x.dtype)

    return wide
