"""The pixels of a shard's samples: its images as they are, and views composed by their recipes."""

from __future__ import annotations

import torch
from torch import Tensor

from synth.shards.samples import Samples
from synth.shards.view_recipes import PARTNER
from synth.shards.views import compose, plain_views


def recipes_of(samples: Samples) -> Tensor:
    """The recipes of N images as they are and of their views, int32 (N, 1 + V, COLUMNS)."""
    height, width = samples.images.shape[2:]
    plain = plain_views(torch.from_numpy(samples.numbers), (height, width))
    return torch.cat([plain[:, None], torch.from_numpy(samples.views)], dim=1)


def composed(samples: Samples, recipes: Tensor, rows: Tensor) -> Tensor:
    """The pixels of the samples with these numbers, uint8 (M, C, H, W); an image counts as one, then its views.

    Args:
        recipes: of all samples, as `recipes_of` gives them.
    """
    images, each = torch.from_numpy(samples.images), recipes.shape[1]
    chosen = recipes[rows // each, rows % each]
    partners = images[chosen[:, PARTNER].long() - int(samples.numbers[0])]
    return compose(images[rows // each], partners, chosen)
