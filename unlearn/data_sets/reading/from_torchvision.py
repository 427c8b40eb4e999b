"""Data sets that torchvision can read, in torchvision's own folder layout."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torchvision import datasets

from synth.basics.errors import UserError, first_line
from unlearn.data_sets.reading.data_set import DataSet, Loaded


def from_torchvision(kind: str, *, natural: bool, class_names: Sequence[str] | None = None) -> DataSet:
    """The record of a data set with 32x32 or 28x28 images that torchvision keeps in memory.

    Args:
        kind: the class in `torchvision.datasets`, such as "CIFAR10".
        class_names: the names of the classes, if torchvision does not know them or names them in another way.
    """

    def load(split: str, root: Path, download: bool) -> Loaded:
        found = open_split(kind, split, root, download)
        labels = found.targets if hasattr(found, "targets") else found.labels  # SVHN calls them labels
        return channels_first(torch.as_tensor(found.data)), torch.as_tensor(labels).long(), class_names or found.classes

    return DataSet(load=load, natural=natural)


def open_split(kind: str, split: str, root: Path, download: bool) -> Any:
    """torchvision's data set. Raises UserError if its files are missing or damaged."""
    build = getattr(datasets, kind)
    takes_train = "train" in inspect.signature(build).parameters  # MNIST and CIFAR; SVHN takes the name of the split
    chosen = {"train": split == "train"} if takes_train else {"split": split}
    try:
        return build(str(root), download=download, **chosen)
    except Exception as error:  # torchvision raises anything from RuntimeError to URLError here
        cure = "check the network" if download else "add --download, or name the folder that has it with --data-root"
        raise UserError(f"cannot find {kind} in {root} ({first_line(error)}): {cure}") from error


def channels_first(images: torch.Tensor) -> torch.Tensor:
    """Images (N, C, S, S) from (N, S, S), (N, S, S, C) or (N, C, S, S)."""
    if images.dim() == 3:
        return images[:, None]
    return images if images.shape[1] == 3 else images.permute(0, 3, 1, 2).contiguous()
