"""Layers that normalise each image on its own: LayerNorm, GroupNorm, LayerNorm2d, and others that do the same.

They are found by what they are and do, never by their names, so networks of timm, torchvision, transformers and own
code are all the same. They keep no statistics of the training images, but their outputs have one scale in every layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from synth.checkpoint.batch_norm import BatchNorm

CLOSE = 0.05  # what bfloat16 and an epsilon may change


def image_norm_layers(net: nn.Module) -> list[nn.Module]:
    """The layers of `net` that may normalise each image on its own, in order of registration.

    PyTorch's classes and their subclasses, and modules of own code with nothing but one vector or two of one length. A
    forward pass shows which of the latter do it (`channels_of`).
    """
    return [m for m in net.modules() if isinstance(m, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)) or is_own_norm(m)]


def is_own_norm(module: nn.Module) -> bool:
    """Whether all that the module has are one or two vectors, as a normalisation of own code has."""
    own = dict(module.named_parameters(recurse=False))
    plain = not any(True for _ in module.children()) and not isinstance(module, (BatchNorm, nn.PReLU))
    vectors = {p.numel() for p in own.values() if p.dim() == 1}
    return plain and 1 <= len(own) <= 2 and len(vectors) == 1 and all(p.dim() == 1 for p in own.values())


class ImageNorms:
    """The outputs of each layer that normalises each image on its own, filled by one forward pass."""

    def __init__(self) -> None:
        self.axes: dict[nn.Module, int | None] = {}
        self.tokens: dict[nn.Module, Tensor] = {}  # (B, T, C), in the order of the forward pass

    def record(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if layer not in self.axes:
            self.axes[layer] = channels_of(layer, inputs[0], output)
        axis = self.axes[layer]
        if axis is not None and output.dim() > 2:
            self.tokens[layer] = output.movedim(axis, -1).flatten(1, -2)


def channels_of(layer: nn.Module, x: Tensor, y: Tensor) -> int | None:
    """The axis of the channels of a layer's output, or None if the layer does not normalise each image on its own.

    PyTorch's LayerNorm has them last and its GroupNorm second. A subclass or own code normalises if an input of twice
    the size has the same output. It may have the channels second or last, and the values show which: without scale and
    shift, those of one place have mean square 1.
    """
    if isinstance(layer, nn.GroupNorm):
        return 1
    if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)) and type(layer) in (nn.LayerNorm, nn.RMSNorm):
        return -1 if len(layer.normalized_shape) == 1 else None
    if not isinstance(y, Tensor) or y.shape != x.shape:
        return None
    with torch.no_grad():
        twice = layer.forward(2 * x)
    if not torch.allclose(twice, y, rtol=CLOSE, atol=CLOSE):
        return None
    vectors = [p.detach().float() for p in layer.parameters()]
    for axis in (1, -1) if y.dim() == 4 else (-1,):
        if y.shape[axis] != vectors[0].numel():
            continue
        z = y.detach().float().movedim(axis, -1)
        z = (z - vectors[1] if len(vectors) == 2 else z) / vectors[0]
        if bool(((z.square().mean(-1) - 1).abs().median() < CLOSE).item()):
            return axis
    return None


@contextmanager
def watch_image_norms(net: nn.Module) -> Iterator[ImageNorms]:
    """Record the outputs of every forward pass inside the `with` block. No hook stays."""
    norms = ImageNorms()
    handles = [layer.register_forward_hook(norms.record) for layer in image_norm_layers(net)]
    try:
        yield norms
    finally:
        for handle in handles:
            handle.remove()
