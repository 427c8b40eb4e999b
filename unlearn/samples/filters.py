"""Filters decide which synthetic samples a student may learn from. A sample is an image, or a view of an image.

A filter takes a `View` of N samples and returns a mask (N,), True for the samples that pass. `apply` runs several
filters in order. A filter can be sent to another process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from synth.shards.plan import Plan
from synth.shards.samples import Samples
from synth.shards.view_recipes import PARTNER
from unlearn.samples.logits import entropy, forget_share

GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True)
class View:
    """What a filter sees of N samples.

    A sample is one image, or a view that mixes two. The images of a run are numbered, and the run's classes take turns
    from one image to the next.
    """

    logits: Tensor  # (N, K), the teacher's
    labels: Tensor  # (N,), the class that the sample's own image was generated for
    partners: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """(N,): the class of a view's other image; of an image, its own class."""
    sources: Tensor = field(default_factory=lambda: torch.empty(0, 2, dtype=torch.long))
    """(N, 2): the numbers of a view's two images; of an image, its own number twice."""
    classes: int = 1  # of the run, which may be fewer than K
    shard: Samples | None = None  # that the samples are from
    rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    """(N,): the number of each sample in its shard; an image counts as one, then its views."""

    def part(self, rows: slice) -> View:
        """What a filter sees of these samples."""
        logits, labels, partners, sources, own = (
            values[rows] for values in (self.logits, self.labels, self.partners, self.sources, self.rows)
        )
        return View(logits, labels, partners, sources, self.classes, self.shard, own)


Filter = Callable[[View], Tensor]


@runtime_checkable
class Tallying(Protocol):
    """A filter that also counts for what it drops samples."""

    def tally(self, view: View, passed: Tensor) -> tuple[Tensor, dict[str, int]]:
        """The mask (N,) of those that pass among the samples of the mask `passed`, and further counts by name."""


def view_of(samples: Samples, plan: Plan) -> View:
    """What the filters see of a shard with N images: N (1 + V) samples, each image followed by its V views."""
    numbers, labels = torch.from_numpy(samples.numbers), torch.from_numpy(samples.labels)
    own = numbers[:, None].repeat(1, samples.logits.shape[1])
    others = own.clone()
    others[:, 1:] = torch.from_numpy(samples.views[..., PARTNER])
    rows = others - numbers[0]  # the images of a shard have consecutive numbers
    return View(
        logits=torch.from_numpy(samples.logits).flatten(0, 1).float(),
        labels=labels.repeat_interleave(own.shape[1]),
        partners=labels[rows].flatten(),
        sources=torch.stack([own.flatten(), others.flatten()], dim=1),
        classes=len(plan.classes),
        shard=samples,
        rows=torch.arange(own.numel()),
    )


def apply(filters: Mapping[str, Filter], view: View) -> tuple[Tensor, dict[str, int]]:
    """The mask (N,) of the samples that pass every filter, and how many samples each filter dropped.

    A sample is counted for the first filter that drops it. A filter that tallies adds counts of its own.
    """
    passed = torch.ones(len(view.labels), dtype=torch.bool)
    dropped: dict[str, int] = {}
    for name, accept in filters.items():
        tally: dict[str, int] = {}
        if isinstance(accept, Tallying):
            accepted, tally = accept.tally(view, passed)
        else:
            accepted = accept(view)
        dropped |= {name: int((passed & ~accepted).sum()), **tally}
        passed &= accepted
    return passed, dropped


@dataclass(frozen=True)
class NoForgetLabel:
    """Pass samples that hold no image generated for a forget class, whatever the teacher answers on them."""

    forget: tuple[int, ...]

    def __call__(self, view: View) -> Tensor:
        classes = torch.tensor(self.forget, dtype=torch.long)
        return ~(torch.isin(view.labels, classes) | torch.isin(view.partners, classes))


@dataclass(frozen=True)
class ForgetShareBelow:
    """Pass samples where p_f(x) < ε for every forget class f: the gate of GKT (Chundawat et al. 2023).

    ε = 1 passes all samples. p_f has to be below ε at temperature 1 and at the given temperature, which is that of the
    student's targets if these keep the forget classes.
    """

    forget: tuple[int, ...]
    epsilon: float
    temperature: float = 1.0

    def __call__(self, view: View) -> Tensor:
        if self.epsilon == 1:  # a p_f close to 1 is rounded to 1, and would be dropped
            return torch.ones_like(view.logits[:, 0], dtype=torch.bool)
        return forget_share(view.logits.double(), self.forget, self.temperature) < self.epsilon


@dataclass(frozen=True)
class EntropyBelow:
    """Pass samples on which the entropy of the teacher's answer, in nats, is below the threshold."""

    threshold: float

    def __call__(self, view: View) -> Tensor:
        return entropy(view.logits) < self.threshold


@dataclass(frozen=True)
class NotHeldOut:
    """Pass samples that hold no held-out image: those to train on. `share` of the images is held out."""

    share: float

    def __call__(self, view: View) -> Tensor:
        return ~is_held_out(view, self.share).any(1)


@dataclass(frozen=True)
class HeldOut:
    """Pass samples that hold only held-out images: those to judge by. `share` of the images is held out."""

    share: float

    def __call__(self, view: View) -> Tensor:
        return is_held_out(view, self.share).all(1)


def unmixed(view: View) -> Tensor:
    """Pass images as they are, and no view that mixes two."""
    return view.sources[:, 0] == view.sources[:, 1]


def is_held_out(view: View, share: float) -> Tensor:
    """Which images of each sample are held out, (N, 2). `share` of each class's images are, the same ones every time.

    Image number n is held out if the fractional part of n · 0.618... (the golden ratio) is below `share`. These
    fractional parts fill the range from 0 to 1 evenly, so that every stretch of numbers gives its share. The images of
    one of K classes are every K-th number. For most K (10 among them) their fractional parts fill the range evenly too.
    For some K, such as 34 or 1,000, they cluster, because K · 0.618... is almost a whole number: some classes would
    give far too many images. There the image's position within its class, plus the number of its class, takes the place
    of n.
    """
    numbers, k = view.sources, view.classes
    positions = numbers if spread_evenly(k) else numbers // k + numbers % k
    return (positions.double() * GOLDEN_RATIO) % 1 < share


@lru_cache
def spread_evenly(step: int) -> bool:
    """Whether the fractional parts of every `step`-th number · 0.618... fill the range from 0 to 1 without large gaps.

    The largest gap must be below 0.1 between 20 of them, and below 0.03 between 100. That is 2 and 3 times the mean
    gap; the best sequence has 1.6 times.
    """
    parts = torch.arange(100, dtype=torch.double) * step * GOLDEN_RATIO % 1
    for count, gap in ((20, 0.1), (100, 0.03)):
        places = parts[:count].sort().values
        if torch.cat([places, places[:1] + 1]).diff().max() >= gap:
            return False
    return True
