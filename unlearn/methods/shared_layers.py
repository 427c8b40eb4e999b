"""The layers that a student keeps compute the same as in its teacher: one forward pass of them serves both.

The teacher answers on the views first, and the outputs of these layers are noted. The student's kept layers then give
what was noted, and only its later layers are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from synth.checkpoint.classifier import Classifier, untouched
from synth.checkpoint.replaced import replaced
from unlearn.methods.early_layers import order_of_calls, whole_layers

TRIED = 7  # images that show whether a layer's outputs have one row for each image


class SharedLayers:
    """The layers of `student` up to and including `last`, which are those of the teacher.

    A layer that gives anything but one row for each image, such as the positions of tokens, is computed in both.

        with shared.noted(teacher):
            teacher(x)  # N views
        with shared.given(student, kept):  # bool (N,)
            student(x[kept])

    `note_more` adds images that only the student is asked about.
    """

    def __init__(self, student: Classifier, last: str) -> None:
        begun, _ = order_of_calls(student)
        called = [path for path in whole_layers(student, last) if path in begun]
        outer = [path for path in called if not any(path.startswith(f"{other}.") for other in called)]
        ending = (path for path in outer if f"{last}.".startswith(f"{path}."))  # `last` may end a larger layer
        self.last = next(ending, last)
        self.paths, self.outputs = outer, dict[str, list[Any]]()
        with untouched(student.net), torch.no_grad(), self.noted(student):
            student(torch.zeros(TRIED, *student.card.input_shape, device=student.mean.device))
        self.paths = [path for path in outer if all(map(is_row_wise, self.outputs[path]))]
        if self.last not in self.paths:
            self.paths = []  # nothing would show where the shared part of a forward pass ends
        self.outputs = {}

    @contextmanager
    def noted(self, teacher: Classifier) -> Iterator[None]:
        """Note the outputs of the shared layers of the forward pass inside the `with` block."""
        outputs: dict[str, list[Any]] = {path: [] for path in self.paths}
        over = False  # a layer that the later part of the network calls again is not shared there

        def noting(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **named: Any) -> Any:
                nonlocal over
                output = forward(*given, **named)
                if not over:
                    outputs[path].append(tree_map_only(Tensor, torch.clone, output))  # a later layer may write over it
                over = over or path == self.last
                return output

            return call

        layers = {path: teacher.net.get_submodule(path) for path in self.paths}
        with replaced({layer: noting(path, layer.forward) for path, layer in layers.items()}):
            yield
        self.outputs = outputs

    @torch.no_grad()
    def note_more(self, teacher: Classifier, x_unit: Tensor) -> None:
        """Note the outputs for further images (M, C, H, W), too, whose rows follow those of the N views."""
        of_views = self.outputs
        if not self.paths:
            return
        with self.noted(teacher):
            teacher(x_unit)
        self.outputs = {
            path: [tree_map(joined, *calls) for calls in zip(of_views[path], further, strict=True)]
            for path, further in self.outputs.items()
        }

    @contextmanager
    def given(self, student: Classifier, kept: Tensor) -> Iterator[None]:
        """The shared layers give what was noted in the forward pass inside the `with` block, of the images in the mask
        `kept` (N,), or (N + M,) after `note_more`.
        """

        def giving(path: str, forward: Callable[..., Any]) -> Callable[..., Any]:
            noted = iter(self.outputs[path])

            def call(*given: Any, **named: Any) -> Any:
                for output in noted:
                    return tree_map_only(Tensor, lambda rows: rows[kept], output)
                return forward(*given, **named)

            return call

        layers = {path: student.net.get_submodule(path) for path in self.paths}
        with replaced({layer: giving(path, layer.forward) for path, layer in layers.items()}):
            yield
        self.outputs = {}


def joined(rows: Tensor, further: Tensor) -> Tensor:
    return torch.cat([rows, further])


def is_row_wise(output: Any) -> bool:
    """Whether a layer's output for `TRIED` images consists of tensors with a row for each."""
    return all(isinstance(part, Tensor) and part.dim() > 0 and len(part) == TRIED for part in tree_leaves(output))
