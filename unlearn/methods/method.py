"""What an unlearning method is: what it starts from, and what the loop asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from synth.basics.errors import HopelessError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from unlearn.samples.pool import Batch


class Stateful(Protocol):
    """What modules, optimisers and schedules share."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


Part = Stateful | torch.Generator | Tensor


@dataclass(frozen=True)
class Inputs:
    """What a method starts from. Nothing here is real data."""

    teacher: Classifier  # frozen, on the device
    card: ModelCard  # the student's
    forget: tuple[int, ...]
    seed: int
    device: str
    samples: Batch | None = None  # training samples from shards, on the device
    say: Callable[[str], None] = lambda line: None  # for what a person should hear at once

    @property
    def retain(self) -> tuple[int, ...]:
        return tuple(c for c in range(self.teacher.card.num_classes) if c not in self.forget)

    def new_student(self) -> Classifier:
        """From scratch, so that no weight of it ever saw the forget classes."""
        return Classifier.untrained(self.card, self.seed).to(self.device)


class Method(Protocol):
    """A method at work. `step(number)` does one step, counted from 0, and returns values for the metrics."""

    student: Classifier
    steps: int

    @property
    def parts(self) -> Mapping[str, Part]: ...

    def step(self, number: int) -> Mapping[str, Tensor]: ...


@runtime_checkable
class Attentive(Protocol):
    """A method that also goes by what the monitor sees on the hold-outs, such as for its learning rate."""

    def heed(self, values: Mapping[str, float]) -> None: ...


class StuckError(HopelessError):
    """A method that can't go on; its words say why. The last good student is kept."""


def is_finite(network: nn.Module) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
