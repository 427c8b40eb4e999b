"""What an audit writes down: readings of subjects, measurements made of them, and what could not be run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from synth.checkpoint.target import Target
from unlearn.auditing.record.intervals import bounded, mean_interval, share_interval

ORIGINAL, MASKED, MODEL, RETRAINED, RANDOM = "original", "masked logit", "this model", "retrained", "random"
PUBLIC = "public"  # the weights that the student started from, with a random last layer
NOT_CHOSEN = "--measures leaves it out"  # why a measure did not run
SUBJECTS = (ORIGINAL, MASKED, MODEL, RETRAINED, PUBLIC, RANDOM)

Values = tuple[tuple[float, ...], ...]  # by model of the subject, then by repeat


class CannotRunError(Exception):
    """A measure cannot run on these inputs. `why` names the cause, `cure` what would make the measure possible."""

    def __init__(self, why: str, cure: str) -> None:
        super().__init__(why)
        self.why, self.cure = why, cure


@dataclass(frozen=True)
class Reading:
    """One subject's values, by model and repeat, and the interval (low, high) of the subject's mean."""

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

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, (*self.flat, self.low, self.high)))

    @classmethod
    def of(cls, values: Sequence[Sequence[float]], confidence: float, images: int | None = None) -> Reading:
        """A reading with the t interval of its mean: over the models, or over the repeats of a single model.

        Args:
            images: the values are percentages of this many images. The interval then covers at least Wilson's interval
            of
                such a share.
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
        family: the group that the measure belongs to. The rules of the verdict and the report's sections go by family:
            accuracy, divergence, head, probe, relearn, transplant, membership, resurrection, or a new one.
        unit: %, bits, steps, points (difference of two percentages), or empty for a plain number.
        more_left: 1 if a higher value means that more of the class is left, -1 if a lower value does, 0 if a difference
            from the retrained model is a trace of the method but not knowledge of the class.
        resolution: the smallest difference that counts, in the unit. The retrained models' interval reaches at least
            this far to either side.
        source: the images that the measure was taken on: real, synthetic, or none.
        key: the report shows the measure on its first screen.
        quality: the measure is shown but has no part in the verdict, because it describes the other classes or because
            it cannot tell a trace from none.
        against_retrained: the value is a distance to the retrained models. They need another one to have a value
            themselves.
        against_mask: the measure takes part in the comparison with the masked logit (rule 2 of the verdict). The rules
            compare the families probe and relearn.
        repeated_by: the option of the command line that adds repeats, such as --draws; empty if there is none. details:
        curves, matrices and counts, as JSON has them. `images` says that the values are shares of that many images.
    """

    name: str
    family: str
    title: str
    unit: str
    more_left: int
    resolution: float
    source: str
    readings: Mapping[str, Reading]
    key: bool = False
    quality: bool = False
    against_retrained: bool = False
    against_mask: bool = False
    repeated_by: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        readings = {}
        for subject, reading in self.readings.items():
            low, high = bounded((reading.low, reading.high), self.unit)
            values = [list(model) for model in reading.values]
            readings[subject] = {"mean": reading.mean, "low": low, "high": high, "values": values}
        facts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**facts, "readings": readings, "details": dict(self.details)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Measurement:
        readings = {
            subject: Reading(tuple(tuple(model) for model in r["values"]), r["low"], r["high"])
            for subject, r in raw["readings"].items()
        }
        return cls(**{**raw, "readings": readings})


@dataclass(frozen=True)
class NotRun:
    """A measure that could not run."""

    name: str
    why: str
    cure: str


def forgotten_in_words(record: Mapping[str, Any]) -> str:
    """`class 3`, `classes 3, 8`, or of a regressor `the range 60:90 of angle (degrees)`."""
    target = Target.from_json(record.get("target"))
    if target and (found := target.words_for(record["forget"])):
        return found
    names = [record["class_names"][c] for c in record["forget"]]
    return f"{'class' if len(names) == 1 else 'classes'} {', '.join(names)}"


def under_copies(recognition: Mapping[str, Any]) -> float:
    """Recognition under copies in a record's `recognition`, in per cent: the mean over the copies that count."""
    shares = [recognition["original"][name] for name in recognition["counted"]]
    return float(sum(shares) / len(shares))


def on_synthetic(record: Mapping[str, Any]) -> bool:
    """Whether some measure of a record was judged on synthetic images."""
    return any(m["source"] == "synthetic" for m in record["measurements"])
