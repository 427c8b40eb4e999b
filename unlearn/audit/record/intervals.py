"""Intervals: of a mean, of a share, and of what one more model of the same kind would give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev


def t_factor(confidence: float, degrees: int) -> float:
    """The two-sided quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.5 + confidence / 2, degrees))


def mean_interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """x̄ ± t_{n-1} s / √n: where the mean of many more such values lies. One value is its own interval."""
    centre = fmean(values)
    if len(values) < 2:
        return centre, centre
    half = t_factor(confidence, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return centre - half, centre + half


def prediction_interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """x̄ ± t_{n-1} s √(1 + 1/n): where one more such value lies. One value is its own interval."""
    centre = fmean(values)
    if len(values) < 2:
        return centre, centre
    half = t_factor(confidence, len(values) - 1) * stdev(values) * math.sqrt(1 + 1 / len(values))
    return centre - half, centre + half


def share_interval(right: float, seen: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of `seen` images, in per cent. Sound at 0 and 100 % too."""
    if not 0 <= right <= seen or seen == 0:
        raise ValueError(f"{right} of {seen} is no share")
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + confidence / 2))
    share, scale = right / seen, 1 + z * z / seen
    centre = (share + z * z / (2 * seen)) / scale
    half = z * math.sqrt(share * (1 - share) / seen + z * z / (4 * seen * seen)) / scale
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def told_from_none(seen: int, confidence: float) -> float:
    """Per cent: a share of so few images is not told from none, nor so small a difference of two models on the same images."""
    return share_interval(0, seen, confidence)[1]


def fewest_pairs(confidence: float) -> int:
    """How many pairs a signed-rank test needs at least: 2^-n must be below 1 - confidence; 5 at 95 %."""
    return math.floor(math.log2(1 / (1 - confidence))) + 1


def is_below(first: Sequence[float], second: Sequence[float], confidence: float) -> bool | None:
    """Whether the first of paired values are lower: Wilcoxon's signed-rank test (1945), one-sided.

    It asks nothing of the values' distribution. Pairs that are equal count for neither side: None where all others are lower,
    and fewer than the test takes.
    """
    from scipy.stats import wilcoxon

    differences = [a - b for a, b in zip(first, second, strict=True) if a != b]
    if differences and max(differences) < 0 and len(differences) < fewest_pairs(confidence):
        return None
    return bool(differences) and float(wilcoxon(differences, alternative="less").pvalue) < 1 - confidence


BOUNDS = {"%": (0.0, 100.0), "bits": (0.0, 1.0)}


def bounded(interval: tuple[float, float], unit: str) -> tuple[float, float]:
    """The interval cut to the values that the unit can have."""
    lowest, highest = BOUNDS.get(unit, (-math.inf, math.inf))
    return max(lowest, interval[0]), min(highest, interval[1])
