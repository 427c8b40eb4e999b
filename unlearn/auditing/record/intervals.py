"""Intervals of a mean, of a share, and of the value that one more model of the same kind would have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev


def t_factor(confidence: float, degrees: int) -> float:
    """The two-sided quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.5 + confidence / 2, degrees))


def mean_interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """x̄ ± t_{n-1} s / √n: the interval of the mean. A single value is its own interval."""
    centre = fmean(values)
    if len(values) < 2:
        return centre, centre
    half = t_factor(confidence, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return centre - half, centre + half


def prediction_interval(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """x̄ ± t_{n-1} s √(1 + 1/n): the interval of one more such value. A single value is its own interval."""
    centre = fmean(values)
    if len(values) < 2:
        return centre, centre
    half = t_factor(confidence, len(values) - 1) * stdev(values) * math.sqrt(1 + 1 / len(values))
    return centre - half, centre + half


def share_interval(right: float, seen: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval (1927), in %, of the share `right` / `seen`. It holds at 0 and 100 % too.

    Raises:
        ValueError: `right` is not between 0 and `seen`, or `seen` is 0.
    """
    if not 0 <= right <= seen or seen == 0:
        raise ValueError(f"{right} of {seen} is not a share")
    from scipy.stats import norm

    z = float(norm.ppf(0.5 + confidence / 2))
    share, scale = right / seen, 1 + z * z / seen
    centre = (share + z * z / (2 * seen)) / scale
    half = z * math.sqrt(share * (1 - share) / seen + z * z / (4 * seen * seen)) / scale
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def smallest_share(seen: int, confidence: float) -> float:
    """The largest share of `seen` images, in %, that is still compatible with none of them.

    A smaller difference does not distinguish two models that saw the same images either.
    """
    return share_interval(0, seen, confidence)[1]


def excess_p_value(value: float, others: Sequence[float], more: int) -> float:
    """The one-sided p-value of `value` as one more of `others`, by the t prediction interval.

    Args:
        others: at least two values.
        more: 1 if a high value counts against the model, -1 if a low value does.

    Returns:
        P(T >= t) with t = more (value - mean) / (s sqrt(1 + 1/n)) and n - 1 degrees of freedom; 0 or 1 if s is 0.
    """
    from scipy.stats import t

    excess, spread = more * (value - fmean(others)), stdev(others) * math.sqrt(1 + 1 / len(others))
    if spread == 0:
        return 0.0 if excess > 0 else 1.0
    return float(t.sf(excess / spread, len(others) - 1))


def holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Which hypotheses are rejected at family-wise level `alpha`, by the step-down test of Holm (1979).

    The smallest of m p-values is compared with alpha / m, the next one with alpha / (m - 1), and so on, until one
    fails.
    """
    rejected = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda n: p_values[n])
    for rank, n in enumerate(order):
        if p_values[n] > alpha / (len(p_values) - rank):
            break
        rejected[n] = True
    return rejected


def fewest_pairs(confidence: float) -> int:
    """The number of pairs that a signed-rank test needs: 2^-n must be below 1 - confidence; 5 at 95 %."""
    return math.floor(math.log2(1 / (1 - confidence))) + 1


def is_below(first: Sequence[float], second: Sequence[float], confidence: float) -> bool | None:
    """Whether the first values of the pairs are lower, by Wilcoxon's one-sided signed-rank test (1945).

    The test makes no assumption on the distribution. Pairs with equal values are left out. None if all remaining pairs
    are lower but the test needs more of them.
    """
    from scipy.stats import wilcoxon

    differences = [a - b for a, b in zip(first, second, strict=True) if a != b]
    if differences and max(differences) < 0 and len(differences) < fewest_pairs(confidence):
        return None
    return bool(differences) and float(wilcoxon(differences, alternative="less").pvalue) < 1 - confidence


BOUNDS = {"%": (0.0, 100.0), "bits": (0.0, 1.0)}


def bounded(interval: tuple[float, float], unit: str) -> tuple[float, float]:
    """The interval, cut to the values that the unit allows."""
    lowest, highest = BOUNDS.get(unit, (-math.inf, math.inf))
    return max(lowest, interval[0]), min(highest, interval[1])
