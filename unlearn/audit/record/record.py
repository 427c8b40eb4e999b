"""What an audit writes down: readings of subjects, measurements made of them, and what could not be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from unlearn.audit.record.intervals import bounded, mean_interval, share_interval

ORIGINAL, MASKED, MODEL, RETRAINED, RANDOM = "original", "masked logit", "this model", "retrained", "random"
SUBJECTS = (ORIGINAL, MASKED, MODEL, RETRAINED, RANDOM)

Values = tuple[tuple[float, ...], ...]  # by model of the subject, then by repeat


class CannotRunError(Exception):
    """A measure that lacks an input: why, and what would make it possible."""

    def __init__(self, why: str, cure: str) -> None:
        super().__init__(why)
        self.why, self.cure = why, cure


@dataclass(frozen=True)
class Reading:
    """One subject's values, by model and repeat, and the interval (low, high) that the subject's mean lies in."""

    values: Values
    low: float
    high: float

    @property
    def mean(self) -> float:
        return fmean(self.flat)

    @property
    def flat(self) -> tuple[float, ...]:
        return tuple(value for model in self.values for value in model)

    @property
    def by_model(self) -> tuple[float, ...]:
        """The mean of each model's repeats."""
        return tuple(map(fmean, self.values))

    @classmethod
    def of(cls, values: Sequence[Sequence[float]], confidence: float, images: int | None = None) -> Reading:
        """With the t interval of the models' mean; of a single model, of its repeats' mean. Where the values are per cents of
        `images` images, it reaches as far as Wilson's interval of such a share at least.
        """
        kept = tuple(tuple(map(float, model)) for model in values)
        means = [fmean(model) for model in kept] if len(kept) > 1 else kept[0]
        low, high = mean_interval(means, confidence)
        if images:
            share = min(100.0, max(0.0, fmean(means))) / 100
            lowest, highest = share_interval(share * images, images, confidence)
            low, high = min(low, lowest), max(high, highest)
        return cls(kept, low, high)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One quantity of every subject.

    Args:
        unit: %, bits, steps, points (of a difference of per cents), or empty for a plain number.
        more_left: 1 where a higher value means that more of the class is left, -1 where a lower one does, 0 where a
            difference from the retrained model shows a trace of the method, but not knowledge of the class.
        resolution: half the width, in the unit, that the retrained model's interval has at least.
        quality: it tells what became of the other classes, or can't tell a trace from none; it takes part in the table, not in
            the verdict.
        against_retrained: it is a distance to retrained models, of which it takes two to have a value themselves.
        source: what images it was measured on: real, synthetic, or none.
        details: curves, matrices and counts, as JSON has them; `images` where the values are shares of so many.
    """

    name: str
    title: str
    unit: str
    more_left: int
    resolution: float
    source: str
    readings: Mapping[str, Reading]
    quality: bool = False
    against_retrained: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        readings = {}
        for subject, r in self.readings.items():
            low, high = bounded((r.low, r.high), self.unit)
            values = [list(model) for model in r.values]
            readings[subject] = {"mean": r.mean, "low": low, "high": high, "values": values}
        return {
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "more_left": self.more_left,
            "resolution": self.resolution,
            "source": self.source,
            "quality": self.quality,
            "against_retrained": self.against_retrained,
            "readings": readings,
            "details": dict(self.details),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Measurement:
        readings = {
            subject: Reading(tuple(tuple(model) for model in r["values"]), r["low"], r["high"])
            for subject, r in raw["readings"].items()
        }
        return cls(**{**raw, "readings": readings})


@dataclass(frozen=True)
class NotRun:
    """A measure that could not be run."""

    name: str
    why: str
    cure: str


def on_synthetic(record: Mapping[str, Any]) -> bool:
    """Whether some measure of a record was judged on synthetic images."""
    return any(m["source"] == "synthetic" for m in record["measurements"])
