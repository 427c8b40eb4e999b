"""A model's answers to images: penultimate features and logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from synth.checkpoint.classifier import Classifier, rows_at_once, to_unit
from synth.checkpoint.layers import last_layer


@dataclass(frozen=True)
class Outputs:
    """A model's answers to N images: penultimate features (N, D) and logits (N, K), on the CPU."""

    features: Tensor
    logits: Tensor


@contextmanager
def features_of(model: Classifier) -> Iterator[list[Tensor]]:
    """The features of the forward passes inside the `with` block, one tensor (N, D) for each, on the CPU.

    They are the input of the last layer; feature maps are averaged over pixels.
    """
    found: list[Tensor] = []

    def keep(layer: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given = inputs[0].detach().float()
        found.append((given.mean((2, 3)) if given.dim() == 4 else given.flatten(1)).cpu())

    handle = last_layer(model).register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


@torch.no_grad()
def outputs(
    model: Classifier, images: Tensor, batch_size: int = 1000, report: Callable[[int], None] = lambda count: None
) -> Outputs:
    """Features and logits in one pass. `report` gets the number of images of each batch."""
    device, rows = model.mean.device, rows_at_once(model, images, batch_size)
    logits = []
    with features_of(model) as features:
        for batch in images.split(rows):
            logits.append(model(to_unit(batch.to(device))).float().cpu())
            report(len(batch))
    return Outputs(torch.cat(features), torch.cat(logits))
