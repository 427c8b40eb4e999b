"""Logits out of what a network returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from synth.checkpoint.wiring import Wiring

SMALLEST = torch.finfo(torch.float32).tiny  # so that no probability has the logarithm minus infinity


def logits_from(returned: Any, wiring: Wiring) -> Tensor:
    """Logits (N, K) of a network's output. A plain network returns them itself.

    Logits are defined up to a constant per image, so the logarithms of a softmax's probabilities are logits, and one
    logit z of two classes is the pair (0, z).
    """
    raw = returned if isinstance(returned, Tensor) or wiring.logits_at is None else at(returned, wiring.logits_at)
    if wiring.outputs == "logits":
        return raw
    if wiring.outputs == "probabilities":
        return raw.clamp_min(SMALLEST).log()
    raw = raw.reshape(len(raw), 1)
    if wiring.outputs == "one logit":
        return torch.cat([torch.zeros_like(raw), raw], dim=1)
    return torch.cat([1 - raw, raw], dim=1).clamp_min(SMALLEST).log()


def at(returned: Any, place: int | str) -> Any:
    """The part of a tuple, dict or output object. Raises an error of any kind where there is none."""
    if isinstance(place, int) or isinstance(returned, Mapping):
        return returned[place]
    return getattr(returned, place)
