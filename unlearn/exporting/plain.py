"""A network's own state dict, as safetensors and as `torch.save` writes it."""

from __future__ import annotations

import io
from collections import OrderedDict

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from synth.checkpoint.classifier import Classifier


def plain_weights(student: Classifier) -> bytes:
    """The network's own state dict as safetensors."""
    return save_safetensors(plain_state(student), metadata={"format": "pt"})


def pickled_weights(student: Classifier) -> bytes:
    """The network's own state dict, as `torch.save` writes it."""
    state = OrderedDict(plain_state(student))
    state._metadata = student.net.state_dict()._metadata  # type: ignore[attr-defined]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def plain_state(student: Classifier) -> dict[str, Tensor]:
    """The network's own state dict on the CPU. No two tensors share memory."""
    return {key: value.detach().cpu().clone().contiguous() for key, value in student.net.state_dict().items()}
