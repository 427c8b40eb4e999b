"""Views: what a student sees of an image, as small recipes. The pixels of a view are a pure function of its recipe.

A student that learns the teacher's answers around and between the images becomes far better than one that learns them
at the images only. So each image has views, which the teacher labels: both the image and a partner are shifted, mixed
(mixup, Zhang et al. 2018), cropped and mirrored. A shard holds the image once and each view as a recipe of eleven
integers, as FKD does for crops (Shen and Xing 2022). All arithmetic is in integers, so the teacher that labels a view
and the student that learns it see the same pixels, to the bit, on every machine and device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from synth.shards.compose_arrays import compose_arrays
from synth.shards.compose_tensors import compose_tensors
from synth.shards.view_recipes import (
    COLUMNS,
    DOWN,
    HEIGHT,
    LEFT,
    MIRRORED,
    PARTNER,
    PARTNER_DOWN,
    PARTNER_RIGHT,
    RIGHT,
    SHARE,
    TOP,
    WHOLE,
    WIDTH,
    largest_shift,
)


def draw_views(
    count: int, views: int, first: int, size: tuple[int, int], crop: float, flip: bool, rng: torch.Generator
) -> Tensor:
    """Recipes for `views` views of each of a shard's images, int32 (count, views, COLUMNS).

    The own share is uniform in [0.5, 1). The partner is another image of the shard, or the image itself if it is alone.

    Args:
        first: the number of the shard's first image; the images have consecutive numbers.
        size: height and width of the images.
        crop: the smallest share of the area that a crop has, drawn uniformly up to 1; 1 crops nothing.
        flip: mirror half of the views.
    """
    height, width = size
    recipes = torch.zeros(count, views, COLUMNS, dtype=torch.int32)
    recipes[..., SHARE] = torch.randint(WHOLE // 2, WHOLE, (count, views), generator=rng, dtype=torch.int32)
    steps = torch.randint(1, count, (count, views), generator=rng) if count > 1 else torch.zeros(count, views).long()
    recipes[..., PARTNER] = (first + (torch.arange(count)[:, None] + steps) % count).to(torch.int32)
    for column, side in ((DOWN, height), (RIGHT, width), (PARTNER_DOWN, height), (PARTNER_RIGHT, width)):
        most = largest_shift(side)
        recipes[..., column] = torch.randint(-most, most + 1, (count, views), generator=rng, dtype=torch.int32)
    scale = (crop + (1 - crop) * torch.rand(count, views, generator=rng, dtype=torch.float64)).sqrt()
    corner = torch.rand(2, count, views, generator=rng, dtype=torch.float64)
    for begin, length, side, place in ((TOP, HEIGHT, height, corner[0]), (LEFT, WIDTH, width, corner[1])):
        recipes[..., length] = (scale * side).round().clamp(1, side).to(torch.int32)
        recipes[..., begin] = (place * (side - recipes[..., length] + 1)).floor().to(torch.int32)
    recipes[..., MIRRORED] = torch.randint(0, 2, (count, views), generator=rng, dtype=torch.int32) if flip else 0
    return recipes


def plain_views(numbers: Tensor, size: tuple[int, int]) -> Tensor:
    """The recipes of the images with these numbers as they are, int32 (N, COLUMNS)."""
    recipes = torch.zeros(len(numbers), COLUMNS, dtype=torch.int32)
    recipes[:, PARTNER], recipes[:, SHARE] = numbers.to(torch.int32), WHOLE
    recipes[:, HEIGHT], recipes[:, WIDTH] = size
    return recipes


def compose(own: Tensor, partner: Tensor, recipes: Tensor) -> Tensor:
    """The pixels of views, uint8 (M, C, H, W), on the device of the images.

    Args:
        own: uint8 (M, C, H, W), the image of each view.
        partner: uint8 (M, C, H, W), its partner. Its values have no influence where the share is WHOLE.
        recipes: int32 (M, COLUMNS).
    """
    if own.device.type == "cpu":
        return torch.from_numpy(compose_arrays(own.numpy(), partner.numpy(), recipes.cpu().numpy()))
    return compose_tensors(own, partner, recipes)
