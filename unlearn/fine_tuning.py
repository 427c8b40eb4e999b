"""Train mode for a network that starts from trained weights."""

from __future__ import annotations

from torch import nn

from synth.checkpoint.batch_norm import batch_norm_layers


def train_mode(model: nn.Module, freeze_batch_norm: bool) -> None:
    """Set train mode. Frozen batch norm normalises by its running statistics and does not change them.

    The statistics of public weights come from millions of images. A small batch's own are noisy, and those of synthetic
    images are not those of photographs. The layers' factors and offsets are trained all the same.
    """
    model.train()
    if freeze_batch_norm:
        for layer in batch_norm_layers(model):
            layer.eval()
