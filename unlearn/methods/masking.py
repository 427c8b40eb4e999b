"""Masking: the logits of the forget classes are set so low that they never win. It forgets nothing; audits compare with
it. The mask of a regressor is a clipped output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.layers import last_layer
from unlearn.methods.method import Inputs
from unlearn.methods.student import copy_of

MASKED = -1e4  # a logit whose softmax is 0 in floating point


@torch.no_grad()
def mask_logits(model: Classifier, forget: Sequence[int]) -> None:
    """Mask the forget classes in the model's own last layer. Raises UserError if that layer has no bias.

    A regressor's output is clipped instead: its card says which range never gets any mass.
    """
    target = model.card.target
    if target is not None:
        clip = target.range_of(forget)
        if clip is None:
            raise UserError("an output can be clipped to leave out one range only: forget one range")
        model.card = dataclasses.replace(model.card, target=dataclasses.replace(target, clip=clip))
        return
    layer = last_layer(model)
    if layer.bias is None:
        raise UserError("the teacher's last layer has no bias to mask the forget classes with: use another method")
    layer.weight[list(forget)] = 0.0
    layer.bias[list(forget)] = MASKED


def refuse_unmaskable(inputs: Inputs) -> None:
    """Raise UserError if the teacher cannot be masked in its last layer."""
    masked = copy_of(inputs.teacher, inputs)
    mask_logits(masked, inputs.forget)
    check_masked(masked, inputs.forget)


@torch.no_grad()
def check_masked(masked: Classifier, forget: tuple[int, ...]) -> None:
    """Raise UserError if the model's answers do not show the mask, for example because a ReLU follows the last
    layer.
    """
    gray = torch.full((1, *masked.card.input_shape), 0.5, device=masked.mean.device)
    logits = masked(gray)[0]
    retain = [c for c in range(masked.card.num_classes) if c not in forget]
    if not logits[list(forget)].max() < logits[retain].min():
        raise UserError(
            f"{masked.card.architecture} can't be masked in its last layer, whose outputs are not its logits: use "
            "another method"
        )
