"""Where the channels of a layer's output are: networks of convolutions and of transformers put them elsewhere."""

from __future__ import annotations

from torch import Tensor, nn


def channel_axis(layer: nn.Module, given: Tensor) -> int:
    """The axis of the channels: of maps (N, C, H, W) the second, of maps (N, H, W, C) and tokens (N, T, C) the last.

    Which of the two a layer gives is shown by the sizes of its weights.
    """
    if given.dim() < 4 or type(layer) in (nn.Linear, nn.LayerNorm):
        return given.dim() - 1
    sizes = {size for weight in layer.parameters() for size in weight.shape}
    return given.dim() - 1 if given.shape[-1] in sizes and given.shape[1] not in sizes else 1
