"""Which samples are near a point that is to be forgotten: those that a student may not learn from.

A sample x passes where ||x - x0|| > ε for every point x0, in pixels and in the penultimate features of the teacher:

    pixels     the Euclidean distance of values from 0 to 1
    features   the Euclidean distance of the inputs of the teacher's last layer

Unless ε is given, it is a share of the median distance from an image to its nearest neighbour, measured in the same
space on the images that are judged together: a shard's images as they are (at most 1,000), or a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from synth.checkpoint.answers import outputs
from synth.checkpoint.classifier import Classifier, to_unit
from unlearn.samples.composed import composed, recipes_of
from unlearn.samples.filters import View
from unlearn.samples.point_settings import PointSettings

PIXELS, FEATURES = "pixels", "features"
NEIGHBOURS = 1000  # images that the distance between neighbours is measured on
AT_ONCE = 500  # samples whose pixels are composed together


class NearPoints:
    """P points, in pixels and, with a teacher, in its features. It may be used by several threads.

    Args:
        images: of the points, uint8 (P, C, H, W).
        teacher: frozen; None to compare pixels only.
    """

    def __init__(self, images: Tensor, settings: PointSettings, teacher: Classifier | None = None) -> None:
        self.settings, self.teacher = settings, teacher
        self.lock = Lock()  # of the teacher: hooks and noted outputs must see one pass at a time
        self.points = self.spaces_of(images)
        self.counts: Counter[str] = Counter()  # by `key`; of images that are in no shard

    @property
    def spaces(self) -> tuple[str, ...]:
        return tuple(self.points)

    def spaces_of(self, images: Tensor, features: Tensor | None = None) -> dict[str, Tensor]:
        """The images (N, C, H, W), uint8 or in [0, 1], as vectors (N, D) of each space, on the CPU.

        Args:
            features: the teacher's on these images (N, D); None to compute them.
        """
        found = {PIXELS: to_unit(images).flatten(1).float().cpu()}
        if self.teacher is not None and features is not None:
            found[FEATURES] = features
        elif self.teacher is not None:
            with self.lock:
                found[FEATURES] = outputs(self.teacher, images).features
        return found

    def epsilons(self, vectors: Mapping[str, Tensor]) -> dict[str, float]:
        """ε of each space: what is given, or a share of the distance between neighbours among these vectors (N, D)."""
        given = {PIXELS: self.settings.points_epsilon, FEATURES: self.settings.points_feature_epsilon}
        share = self.settings.points_share
        return {
            space: share * between_neighbours(vectors[space][:NEIGHBOURS]) if (own := given[space]) is None else own
            for space in self.spaces
        }

    def near(
        self, vectors: Mapping[str, Tensor], epsilons: Mapping[str, float], many: Tensor | None = None
    ) -> tuple[Tensor, Counter[str]]:
        """The mask (N,) of the images with these vectors that are near some point, and their number by `key`.

        An image is counted once: in the first space in which it is near a point, for the nearest point.

        Args:
            many: as how many each image counts (N,); None for 1.
        """
        many = torch.ones(len(vectors[PIXELS]), dtype=torch.long) if many is None else many
        found, counts = torch.zeros(len(vectors[PIXELS]), dtype=torch.bool), Counter[str]()
        for space, values in vectors.items():
            nearest = torch.cdist(values, self.points[space]).argmin(1)
            # cdist multiplies matrices, and finds equal rows some hundredths apart
            distances = torch.linalg.vector_norm(values - self.points[space][nearest], dim=1)
            new = (distances <= epsilons[space]) & ~found
            for point, samples in zip(nearest[new].tolist(), many[new].tolist(), strict=True):
                counts[key(space, point)] += samples
            found |= new
        return found, counts

    def near_in_batch(self, x_unit: Tensor, count: bool, features: Tensor | None = None) -> Tensor:
        """The mask (N,), on the CPU, of the images of a batch in [0, 1] that are near some point.

        Args:
            count: add them to `counts`.
            features: the teacher's on this batch (N, D), if they are known already.
        """
        vectors = self.spaces_of(x_unit, features)
        found, counts = self.near(vectors, self.epsilons(vectors))
        if count:
            self.counts.update(counts)
        return found

    def state_dict(self) -> dict[str, Any]:
        return dict(self.counts)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.counts = Counter(state)


def between_neighbours(vectors: Tensor) -> float:
    """The median over N vectors (N, D) of the distance to the nearest other one; infinite for fewer than two."""
    if len(vectors) < 2:
        return float("inf")
    distances = torch.cdist(vectors, vectors).fill_diagonal_(float("inf"))
    return float(distances.min(1).values.median())


def key(space: str, point: int) -> str:
    """The name under which the samples near a point are counted."""
    return f"near point {point} in {space}"


@dataclass(frozen=True)
class FarFromPoints:
    """Pass samples that are near no point. Views are compared as the student sees them.

    fresh: the student sees other views than those of the shards, which are compared when they are made. Then images are
        compared as they are, and all samples of one that is near a point are dropped.
    """

    points: NearPoints
    fresh: bool = False

    def __call__(self, view: View) -> Tensor:
        return self.tally(view, torch.ones(len(view.labels), dtype=torch.bool))[0]

    def tally(self, view: View, passed: Tensor) -> tuple[Tensor, dict[str, int]]:
        assert view.shard is not None, "only samples of a shard have pixels"
        epsilons = self.points.epsilons(self.points.spaces_of(torch.from_numpy(view.shard.images[:NEIGHBOURS])))
        recipes = recipes_of(view.shard)
        each = recipes.shape[1] if self.fresh else 1  # samples that are judged together
        firsts, place, many = (view.rows[passed] // each).unique(return_inverse=True, return_counts=True)
        wanted = firsts * each
        near, counts = torch.zeros(len(wanted), dtype=torch.bool), Counter[str]()
        for rows in torch.arange(len(wanted)).split(AT_ONCE):
            pixels = composed(view.shard, recipes, wanted[rows])
            near[rows], few = self.points.near(self.points.spaces_of(pixels), epsilons, many[rows])
            counts.update(few)
        far = passed.clone()
        far[passed] = ~near[place]
        return far, dict(counts)


@dataclass(frozen=True)
class Dropped:
    """How many samples were dropped near each point, by space: a list with one count per point."""

    by_space: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, counts: Mapping[str, int], points: NearPoints) -> Dropped:
        """From counts by `key`."""
        many = len(points.points[PIXELS])
        return cls({space: [counts.get(key(space, n), 0) for n in range(many)] for space in points.spaces})

    @property
    def words(self) -> str:
        """What the filter dropped, in one line; plainly where it dropped nothing."""
        spaces = " or in the teacher's ".join(self.by_space)
        if not any(map(any, self.by_space.values())):
            return (
                f"no sample was near a point, in {spaces}: the images resemble none of the points, and the filter "
                "changed nothing"
            )
        parts = [
            f"{sum(counts):,} near {sum(map(bool, counts)):,} of {len(counts):,} points in {space}"
            if any(counts)
            else f"none in {space}"
            for space, counts in self.by_space.items()
        ]
        return f"dropped samples near points: {', '.join(parts)}"
