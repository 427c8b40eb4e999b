"""1,797 real digits, which scikit-learn ships: no download, quick tests. 8x8 pixels, enlarged to 28x28."""

from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from unlearn.data_sets.reading.data_set import DataSet, Loaded


def load(split: str, root: Path, download: bool) -> Loaded:
    """A quarter of each class is the test set. It is always the same quarter."""
    pixels, targets = load_digits(return_X_y=True)
    train, test = train_test_split(range(len(targets)), test_size=0.25, random_state=0, stratify=targets)
    rows = train if split == "train" else test
    small = torch.tensor(pixels[rows], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    large = torch.nn.functional.interpolate(small, size=(28, 28), mode="bilinear", align_corners=False)
    return (large * 255).round().to(torch.uint8), torch.tensor(targets[rows]), tuple("0123456789")


DATA_SET = DataSet(load=load, natural=False)
