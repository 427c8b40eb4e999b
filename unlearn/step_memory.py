"""Whether the memory holds a training step. A batch that does not fit is refused before the training begins.

It is not halved, as a synthesis batch is: batch norm and the learning rate depend on it, and a student should follow
from its settings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F

from synth.basics.byte_sizes import in_gib
from synth.basics.errors import UsageError
from synth.basics.free_memory import free_memory
from synth.basics.memory_need import Need, need_of
from synth.basics.out_of_memory import most_rows, surely_fits
from synth.checkpoint.classifier import LARGEST_STEP, Classifier

MOMENTS = 2  # tensors of the weights' size that an optimiser keeps at most


def refuse_large_batch(model: Classifier, batch_size: int, rehearse: Callable[[int], object] | None = None) -> None:
    """Raise UsageError if a training step on `batch_size` images is not expected to fit into memory.

    Args:
        model: what is trained, on its device.
        rehearse: does the work of a step on this many images and leaves no trace, for a step that is more than the
            forward and the backward pass of the model.
    """
    device = str(model.mean.device)
    if rehearse is None and surely_fits(LARGEST_STEP * model.flop * batch_size, device):
        return
    need = training_need(model) if rehearse is None else need_of(rehearse, device)
    most = most_rows(need, device)
    if batch_size <= most:
        return
    free = free_memory(device)
    smaller = (
        f"use --batch-size {2 ** (most.bit_length() - 1)}" if most >= 2 else "use smaller images or a smaller network"
    )
    shape = "x".join(map(str, model.card.input_shape))
    raise UsageError(
        f"a training step on {batch_size} images of {shape} takes about {in_gib(need.of(batch_size))} of memory, and "
        f"{in_gib(free.size)} is free ({free.limit}): {smaller}, or free memory"
    )


def training_need(model: Classifier) -> Need:
    """The memory of a step that trains the model: both passes, the gradients, and what the optimiser keeps."""
    trained, device = copy.deepcopy(model).train().requires_grad_(True), model.mean.device

    def step(images: int) -> None:
        x_unit = torch.zeros(images, *model.card.input_shape, device=device)
        labels = torch.zeros(images, dtype=torch.long, device=device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            F.cross_entropy(trained(x_unit), labels).backward()
        trained.zero_grad(set_to_none=True)

    need = need_of(step, str(device))
    weights = sum(value.nbytes for value in trained.parameters())
    return Need(need.fixed + MOMENTS * weights, need.each)
