"""The points that a run forgets: read, compared with its images, and listed with what was dropped near each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from synth.basics.errors import UsageError
from unlearn import methods
from unlearn.points import UNKNOWN, Points, load_points
from unlearn.run.opening import Opened
from unlearn.run.request import Request
from unlearn.samples.near_points import Dropped, NearPoints


@dataclass(frozen=True)
class RunPoints:
    """The points of a run, and the filter that keeps what is near them from the student."""

    points: Points
    near: NearPoints

    def __len__(self) -> int:
        return len(self.points)

    @property
    def words(self) -> str:
        """Such as `pixels and in the teacher's features`."""
        return " and in the teacher's ".join(self.near.spaces)

    def claim(self, request: Request) -> dict[str, Any]:
        """What settings.json says of them."""
        place = {"forget_points": str(request.forget_points and request.forget_points.resolve())}
        return {**place, "points_sha256": self.points.sha256, **dataclasses.asdict(request.points)}

    def facts(self, dropped: Dropped) -> dict[str, Any]:
        """What provenance.json says of them."""
        by_space = {space: sum(counts) for space, counts in dropped.by_space.items()}
        return {
            "folder": self.points.place,
            "sha256": self.points.sha256,
            "images": len(self.points),
            "dropped": by_space,
        }

    def listing(self, dropped: Dropped) -> list[dict[str, Any]]:
        """A ledger: the file of each point, its label, and how many samples were dropped near it, by space."""
        names, labels = self.points.class_names, self.points.labels.tolist()
        return [
            {
                "file": file,
                "label": None if label == UNKNOWN else names[label],
                **{f"dropped_in_{space}": counts[number] for space, counts in dropped.by_space.items()},
            }
            for number, (file, label) in enumerate(zip(self.points.names, labels, strict=True))
        ]


def points_of(request: Request, module: Any, opened: Opened, say: Callable[[str], None]) -> RunPoints | None:
    """The points of `request.forget_points`; None without any.

    Raises:
        UsageError: the method forgets no points, or nothing is to be forgotten.
        UserError: the points cannot be read.
    """
    if request.forget_points is None:
        if not request.forget:
            raise UsageError("nothing is to be forgotten: name classes with --forget")
        return None
    if not methods.forgets_points(module):
        raise UsageError(f"{request.method} forgets no single points: use distill, gkt or adaptive")
    card = opened.card
    points = load_points(request.forget_points, card.input_shape, card.class_names, say=say)
    if opened.teacher is None and request.points.points_feature_epsilon is not None:
        raise UsageError("--points-feature-epsilon has no effect without the teacher: name it with --teacher")
    return RunPoints(points, NearPoints(points.images, request.points, opened.teacher))
