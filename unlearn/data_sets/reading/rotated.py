"""Images turned by random angles, whose angle is the target of a regressor."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.checkpoint.target import Target
from unlearn.data_sets.reading.data_set import DataSet, Loaded

ANGLE = Target(name="angle", unit="degrees", low=0.0, high=180.0)
AT_ONCE = 1000  # images that are turned together
SEEDS = {"train": 1, "test": 2}


def rotated(load: Callable[[str, Path, bool], Loaded]) -> DataSet:
    """The record of a data set whose images are those that `load` gives, each turned counterclockwise by an angle.

    The angles are drawn evenly from 0 to 180 degrees, the same ones every time.
    """

    def load_turned(split: str, root: Path, download: bool) -> Loaded:
        images, _, _ = load(split, root, download)
        angles = 180 * torch.rand(len(images), generator=torch.Generator().manual_seed(SEEDS[split]))
        parts = zip(images.split(AT_ONCE), angles.split(AT_ONCE), strict=True)
        return torch.cat([turned(*part) for part in parts]), angles, ()

    return DataSet(load=load_turned, natural=False, target=ANGLE)


def turned(images: Tensor, degrees: Tensor) -> Tensor:
    """Images uint8 (N, C, S, S), each turned counterclockwise by its angle (N,). What comes from outside is black."""
    angle = degrees * math.pi / 180
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, align_corners=False).round().clamp(0, 255).to(torch.uint8)
