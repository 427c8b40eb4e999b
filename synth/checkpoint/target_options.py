"""A regressor's target from the options of a command. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import Any

from synth.basics.errors import UsageError
from synth.checkpoint.range_choice import parse_range
from synth.checkpoint.target import DEFAULT_BINS, Target


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """What a command was given of a target; None where it was not.

    `task` is "classification" or "regression", and `target_range` text such as `0:100`.
    """

    task: str = "classification"
    target_name: str | None = None
    target_unit: str | None = None
    target_range: str | None = None
    bins: int | None = None
    head: str | None = None
    spread: float | None = None

    @property
    def given(self) -> list[str]:
        """The flags that a user gave, besides --task."""
        names = [field.name for field in fields(self)[1:] if getattr(self, field.name) is not None]
        return [f"--{name.replace('_', '-')}" for name in names]

    def target(self, own: Target | None = None) -> Target | None:
        """The target; None for a classifier. What no option gives is taken from `own`, the target of a data set.

        Raises UsageError for options without effect, without a name or range, or that do not fit together.
        """
        if self.task != "regression":
            if self.given:
                raise UsageError(f"{self.given[0]} has no effect without --task regression: add that")
            return None
        head = self.head or (own.head if own else "bins")
        if head == "number" and self.spread is None:
            raise UsageError(
                "a network that returns one number does not say how far off it may be, and without a spread a range "
                "has no probability: give the network's typical error on test data as --spread, in the target's unit"
            )
        try:
            if own is not None:
                self.refuse_other(own)
                return replace(own, bins=self.bins or own.bins, head=head, spread=self.spread)
            low, high = self.limits()
            return Target(
                name=self.target_name or "target",
                unit=self.target_unit or "",
                low=low,
                high=high,
                bins=self.bins or DEFAULT_BINS,
                head=head,
                spread=self.spread,
            )
        except ValueError as error:
            raise UsageError(f"{error}") from error

    def limits(self) -> tuple[float, float]:
        found = parse_range(self.target_range or "")
        if found is None:
            asked = f"'{self.target_range}' is no range" if self.target_range else "--target-range is missing"
            raise UsageError(f"{asked}: give the smallest and the largest target, such as --target-range 0:100")
        return found

    def refuse_other(self, own: Target) -> None:
        """Raise UsageError if the options contradict the target that a data set has."""
        asked = {"name": self.target_name, "unit": self.target_unit}
        for name, value in asked.items():
            if value is not None and value != getattr(own, name):
                raise UsageError(f"the data has the target {own.words}: leave out --target-{name}")
        if self.target_range is not None and self.limits() != (own.low, own.high):
            raise UsageError(f"the data has the target {own.words}: leave out --target-range")


def with_target(work: Callable[..., None]) -> Callable[..., None]:
    """`work` gets the options of a target as one argument, `of_target`."""

    @wraps(work)
    def packed(*arguments: Any, **options: Any) -> None:
        given = {field.name: options.pop(field.name) for field in fields(TargetOptions)}
        work(*arguments, of_target=TargetOptions(**given), **options)

    return packed
