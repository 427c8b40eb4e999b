"""Networks built without memory for their weights, to learn the names and shapes of their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# The functions that modules make weights with. `torch.device("meta")` would also take away the numbers that some
# constructors compute and read (`torch.linspace(0, 0.1, depth)[i].item()`, as in Swin, ConvNeXt and RegNet).
MAKES_WEIGHTS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


class WithoutMemory(TorchFunctionMode):
    """Inside the `with` block, weights get a shape and a dtype but no memory. Other tensors have their values."""

    def __torch_function__(
        self, function: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function in MAKES_WEIGHTS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return function(*args, **kwargs)
