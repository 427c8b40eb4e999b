"""A regressor's outputs in the unit of its target, as other programs expect them."""

from __future__ import annotations

import copy
import dataclasses
import math

import torch

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.layers import last_layer


def in_units(model: Classifier) -> Classifier:
    """The same model with offset 0 and scale 1, if it returns a mean: its last layer takes them over.

    A mean m becomes offset + scale * m, and a log variance v becomes v + 2 log(scale). Raises UserError if the last
    layer has no bias.
    """
    target = model.card.target
    if target is None or target.head == "bins" or (target.offset, target.scale) == (0.0, 1.0):
        return model
    changed = copy.deepcopy(model)
    layer = last_layer(changed)
    if layer.bias is None:
        raise UserError("the student's last layer has no bias to hold the target's offset: use a network with one")
    with torch.no_grad():
        layer.weight[0] *= target.scale
        layer.bias[0] = target.offset + target.scale * layer.bias[0]
        if target.head == "gaussian":
            layer.bias[1] += 2 * math.log(target.scale)
    changed.card = dataclasses.replace(model.card, target=dataclasses.replace(target, offset=0.0, scale=1.0))
    return changed
