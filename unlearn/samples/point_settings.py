"""What a sample near a point is. No torch here: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass

from synth.basics.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class PointSettings(Settings):
    """When a sample x is near a point x0, and so dropped: ||x - x0|| ≤ ε, in pixels or in the teacher's features."""

    points_share: float = setting(
        0.5,
        "a sample is near a point within this share of the median distance between neighbouring images (ε)",
        above=0,
        at_most=10,
    )
    points_epsilon: float | None = setting(
        None, "ε in pixels (Euclidean, of values from 0 to 1); by default by --points-share", above=0
    )
    points_feature_epsilon: float | None = setting(
        None, "ε in the teacher's penultimate features; by default by --points-share", above=0
    )
