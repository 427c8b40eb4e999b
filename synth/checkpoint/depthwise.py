"""Depthwise convolutions with a stride, whose gradient in bfloat16 is slow on CPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from synth.checkpoint.replaced import replaced


def strided_depthwise(net: nn.Module) -> list[nn.Conv2d]:
    """The network's depthwise convolutions that shrink their maps, as in MobileNet and EfficientNet."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    return [layer for layer in layers if layer.groups == layer.in_channels > 1 and max(layer.stride) > 1]


@contextmanager
def strided_depthwise_in_float32(net: nn.Module) -> Iterator[None]:
    """Compute these layers in float32 inside the `with` block, although autocast is on; their maps keep their type.

    Their forward pass takes the same time in both types. Their gradient with respect to the input takes 12 to 18 times
    as long in bfloat16 (oneDNN in PyTorch 2.14, one core with AVX-512 BF16: 62 ms where float32 takes 4.5), and then is
    half of the whole backward pass of an EfficientNet.
    """
    with replaced({layer: in_float32(layer.forward) for layer in strided_depthwise(net)}):
        yield


def in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def wide(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float()).to(x.dtype)

    return wide
