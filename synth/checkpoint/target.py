"""What a regressor predicts: a number with a name, a unit and a range, cut into intervals. Imports no torch.

A regressor is a classifier over equal intervals of its target, the bins. A head of bins is one by construction: its
softmax gives each interval its probability, its mass. A Gaussian head is turned into the same masses by its cumulative
distribution function (`synth.checkpoint.masses`). Two reasons decided for this design:

- Everything that a gate needs is a sum of masses. P(a <= y <= b | x) is exact if a and b are edges of bins, whatever
  the head, and there is one formula for the likelihood of both heads.
- Synthesis, shards, filters, students and audits work with K answers per image. They need no second kind of answer,
  and a forgotten range is a set of bins.

What it costs: a prediction is known within its bin only, so an error below a quarter of a bin's width means little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from synth.basics.errors import UsageError

HEADS = ("bins", "gaussian", "number")
DEFAULT_BINS = 36
MOST_BINS = 1000
SLACK = 1e-6  # of a bin's width, by which a written edge may miss the edge that it means


class Bins(tuple[int, ...]):
    """The bins of a range, which is one event: its probability is the sum of their masses."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A regressor's target, and how the outputs of its network become a distribution of it.

    Attributes:
        name: such as "angle".
        unit: such as "degrees"; empty for a plain number.
        low, high: the range, in the unit. The first and last bin also hold what lies beyond.
        bins: how many equal intervals the range is cut into.
        head: `bins`: the network returns one logit per bin. `gaussian`: it returns (mean, log variance). `number`: it
            returns the mean only, and its spread is `spread`.
        offset, scale: a mean m of the network stands for offset + scale * m in the unit, and a standard deviation s
            for scale * s.
        spread: the standard deviation of a `number` head, in the unit.
        clip: a range whose mass is moved to the other bins, in proportion to theirs: a clipped output.
    """

    name: str
    unit: str = ""
    low: float
    high: float
    bins: int = DEFAULT_BINS
    head: str = "bins"
    offset: float = 0.0
    scale: float = 1.0
    spread: float | None = None
    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        numbers = (self.low, self.high, self.offset, self.scale, 0.0 if self.spread is None else self.spread)
        if not all(map(math.isfinite, numbers)) or not self.low < self.high:
            raise ValueError(f"the target's range {self.low:g} to {self.high:g} is not two numbers in ascending order")
        if not self.name or not all(text.isprintable() and len(text) <= 100 for text in (self.name, self.unit)):
            raise ValueError("the target's name and unit must be printable text of at most 100 characters")
        if not 2 <= self.bins <= MOST_BINS:
            raise ValueError(f"a target has 2 to {MOST_BINS:,} bins, not {self.bins}")
        if self.head not in HEADS:
            raise ValueError(f"the head {self.head[:20]!r} is none of {', '.join(HEADS)}")
        if not self.scale > 0 or (self.head == "number") != (self.spread is not None) or (self.spread or 1) <= 0:
            raise ValueError("scale and spread must be above 0, and a head of one number, and no other, has a spread")
        if self.clip is not None:
            self.bins_within(*self.clip)

    @property
    def outputs(self) -> int:
        """The outputs of the network."""
        return {"bins": self.bins, "gaussian": 2, "number": 1}[self.head]

    @property
    def width(self) -> float:
        """Of a bin, in the unit."""
        return (self.high - self.low) / self.bins

    @property
    def edges(self) -> tuple[float, ...]:
        """The bins + 1 edges, in the unit."""
        return (*(self.low + number * self.width for number in range(self.bins)), self.high)

    @property
    def centres(self) -> tuple[float, ...]:
        """The middle of each bin, in the unit."""
        return tuple(self.low + (number + 0.5) * self.width for number in range(self.bins))

    @property
    def bin_names(self) -> tuple[str, ...]:
        """Such as "60 to 65"."""
        written = [f"{edge:.6g}" for edge in self.edges]
        return tuple(f"{low} to {high}" for low, high in pairwise(written))

    @property
    def words(self) -> str:
        """Such as `angle in degrees, 0 to 180`."""
        return f"{self.name}{f' in {self.unit}' if self.unit else ''}, {self.low:g} to {self.high:g}"

    @property
    def standardised(self) -> Target:
        """The same target for a network with random weights: outputs of -5 to 5, as usual of logits, are the range.

        A head of one number has a unit of at most its spread, by which its likelihood divides the error: in a larger
        unit its gradient would be larger than that of logits.
        """
        scale = min((self.high - self.low) / 10, self.spread or math.inf)
        return replace(self, offset=(self.low + self.high) / 2, scale=scale, clip=None)

    def bins_within(self, low: float, high: float) -> Bins:
        """The bins of the range from `low` to `high`, in the unit.

        Raises UsageError for a range that is empty, outside the target's or all of it, or that cuts a bin.
        """
        asked = f"{low:g}:{high:g}"
        if not low < high:
            raise UsageError(f"the range {asked} is empty: write the smaller number first, such as 60:90")
        if low < self.low - SLACK * self.width or high > self.high + SLACK * self.width:
            raise UsageError(f"the range {asked} is not within the target's ({self.words}): choose one inside")
        first, last = ((edge - self.low) / self.width for edge in (low, high))
        if max(abs(place - round(place)) for place in (first, last)) > SLACK:
            near = f"{self.low + math.floor(first + SLACK) * self.width:.6g}:"
            near += f"{self.low + math.ceil(last - SLACK) * self.width:.6g}"
            raise UsageError(
                f"the range {asked} cuts a bin: the bins of {self.name} are {self.width:.6g} wide from {self.low:g} "
                f"on, so choose {near}, or a teacher with other --bins"
            )
        if round(last) - round(first) == self.bins:
            raise UsageError(f"the range {asked} is all of the target's: leave some of it to retain")
        return Bins(range(round(first), round(last)))

    def range_of(self, bins: Sequence[int]) -> tuple[float, float] | None:
        """The range that consecutive bins make, in the unit; None if the bins are not consecutive."""
        chosen = sorted(bins)
        if not chosen or chosen != list(range(chosen[0], chosen[-1] + 1)):
            return None
        return self.edges[chosen[0]], self.edges[chosen[-1] + 1]

    def words_for(self, bins: Sequence[int]) -> str | None:
        """Consecutive bins as `the range 60:90 of angle (degrees)`; None if the bins are not consecutive."""
        found = self.range_of(bins)
        if found is None:
            return None
        unit = f" ({self.unit})" if self.unit else ""
        return f"the range {found[0]:g}:{found[1]:g} of {self.name}{unit}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any] | None) -> Target | None:
        """Raises KeyError, TypeError or ValueError for anything that `to_json` does not write."""
        if raw is None:
            return None
        clip = raw["clip"]
        return cls(
            name=str(raw["name"]),
            unit=str(raw["unit"]),
            low=float(raw["low"]),
            high=float(raw["high"]),
            bins=int(raw["bins"]),
            head=str(raw["head"]),
            offset=float(raw["offset"]),
            scale=float(raw["scale"]),
            spread=None if raw["spread"] is None else float(raw["spread"]),
            clip=None if clip is None else (float(clip[0]), float(clip[1])),
        )
