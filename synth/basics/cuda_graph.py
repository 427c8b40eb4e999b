"""A computation on a CUDA device that is captured once and replayed: one launch in place of hundreds.

A step of an optimisation launches some hundred kernels. On a fast GPU they take less time than the processor needs to
launch them one by one (PyTorch documentation, "CUDA Graphs").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

REHEARSALS = 3  # runs before the capture, in which libraries choose their kernels and reserve memory


class Replayed:
    """The computation `step`, as a CUDA graph.

    Args:
        step: takes `inputs`, changes `state` in place, and returns a tensor. Its shapes never change, and it never
            waits for the device.
        inputs: tensors like those of later calls, on any device.
        state: called after a rehearsal, gives the tensors that a step changes. They are put back afterwards.

    Raises RuntimeError if the computation cannot be captured. The state is then as before.
    """

    def __init__(
        self,
        step: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        state: Callable[[], Sequence[tuple[Tensor, Tensor]]],
        device: torch.device,
    ) -> None:
        self.inputs = [given.to(device, copy=True) for given in inputs]
        self.graph = torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        try:
            with torch.cuda.stream(aside):
                for _ in range(REHEARSALS):
                    step(*self.inputs)
            torch.cuda.current_stream(device).wait_stream(aside)
            with torch.cuda.graph(self.graph):
                self.result = step(*self.inputs)
        finally:
            with torch.no_grad():
                for changed, before in state():
                    changed.copy_(before)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The result of the next step. The next call overwrites it."""
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.result
