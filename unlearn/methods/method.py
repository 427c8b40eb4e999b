"""What an unlearning method is: what it starts from, and what the loop asks of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from synth.basics.errors import HopelessError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.public_start import PublicStart
from unlearn.points import Points
from unlearn.samples.near_points import NearPoints
from unlearn.samples.stream import Stream


class Stateful(Protocol):
    """What modules, optimisers and schedules have in common."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


Part = Stateful | torch.Generator | Tensor


@dataclass(frozen=True)
class Inputs:
    """What a method starts from. Nothing here is real data."""

    loaded_teacher: Classifier | None  # frozen, on the device; maybe None for a method with NEEDS_TEACHER = False
    card: ModelCard  # the student's
    forget: tuple[int, ...]
    seed: int
    device: str
    samples: Stream | None = None  # from shards, for a method that trains on them
    say: Callable[[str], None] = lambda line: None  # for messages that a person should see at once
    points: NearPoints | None = None  # to forget; a stream has filtered its samples by them already
    asked_points: Points | None = None  # the points themselves, with their labels
    public: PublicStart | None = None  # weights that the student starts from instead of random ones

    @property
    def teacher(self) -> Classifier:
        assert self.loaded_teacher is not None, "a method with NEEDS_TEACHER = False gets no teacher"
        return self.loaded_teacher

    @property
    def retain(self) -> tuple[int, ...]:
        return tuple(c for c in range(self.card.num_classes) if c not in self.forget)

    def new_student(self) -> Classifier:
        """A student with random weights or public ones: no weight of it ever saw the forget classes of the teacher.

        Raises UsageError if the public weights do not fit the student.
        """
        start, seed = self.public, initial_seed(self.seed)
        student = start.network(self.card, seed) if start else Classifier.untrained(self.card, seed)
        return student.to(self.device)


def initial_seed(seed: int, whose: str = "student") -> int:
    """The seed of the random weights of a student, or of another model, such as the audit's random ones. They are other
    ones than `unlearn train` starts a teacher of the same seed from.

    A student that starts from its teacher's own first weights follows the teacher to where it ended, and learns what
    the teacher memorised from images that show nothing of it (Cloud et al. 2025, Subliminal Learning). On 5,000 digits
    such students said most of the wrong labels that their teacher had memorised, and others few
    (docs/results/points.md).
    """
    return zlib.crc32(f"{whose} {seed}".encode())


class Method(Protocol):
    """A method at work. `step(number)` does one step, counted from 0, and returns values for the metrics."""

    student: Classifier
    steps: int

    @property
    def parts(self) -> Mapping[str, Part]: ...

    def step(self, number: int) -> Mapping[str, Tensor]: ...


@runtime_checkable
class Attentive(Protocol):
    """A method that also uses the monitor's values on the hold-out, for example to set its learning rate."""

    def heed(self, values: Mapping[str, float]) -> None: ...


@runtime_checkable
class Rehearsing(Protocol):
    """A method whose step takes more memory than the training of its student."""

    def rehearse(self, images: int) -> None:
        """Do the work of a step that takes most memory, on this many images, and leave no trace."""


class StuckError(HopelessError):
    """The method cannot go on; the message says why. The last good student is kept."""


def is_finite(network: nn.Module) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())
