"""The record that describes one data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from synth.checkpoint.target import Target

Loaded = tuple[Tensor, Tensor, Sequence[str]]
"""Images uint8 (N, C, S, S), their classes int64 (N,) as numbers from 0, and the names of all classes.

Of a regressor's data set: the images, their targets float32 (N,) in the target's unit, and no names.
"""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """How a data set is read, and what is known about its images.

    `load` takes the split ("train" or "test"), the folder that holds data sets, and whether it may download the files.
    It raises UserError if the files are missing.
    """

    load: Callable[[str, Path, bool], Loaded]
    natural: bool  # a mirrored or shifted image still shows its class, so training mirrors and shifts by default
    target: Target | None = None  # of a regressor's data set
