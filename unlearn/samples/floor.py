"""How sure a teacher ever is that an image is of no forget class."""

from __future__ import annotations

import torch

from unlearn.samples.logits import forget_share
from unlearn.samples.runs import Runs


def forget_floor(runs: Runs, forget: tuple[int, ...]) -> float:
    """The probability of the forget classes that nine of ten images of the other classes reach; 0 without such images.

    It is measured on the images of the first shard, without views. A teacher that was trained on soft labels, as by
    label smoothing, gives every class some probability on every image.
    """
    samples = runs.read(runs.published[0])
    kept = ~torch.isin(torch.from_numpy(samples.labels), torch.tensor(forget, dtype=torch.long))
    shares = forget_share(torch.from_numpy(samples.logits[:, 0])[kept].double(), forget)
    return shares.quantile(0.1).item() if len(shares) else 0.0


def in_words(floor: float) -> str:
    return (
        f"on 9 of 10 images of the other classes the teacher gives a forget class a probability of {floor:.2g} or more"
    )
