"""What a teacher sees of the images in one step: crops, shifts and mirror images at any size."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from synth.methods.multi_crop import Ranges, axis_weights, random_views

WHOLE = Ranges()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(
    before: int, after: int, start: float = 0, length: float | None = None, shift: int = 0, mirrored: bool = False
) -> Tensor:
    part = before if length is None else length
    return axis_weights(
        *(before, after, torch.tensor([start]), torch.tensor([float(part)])),
        *(torch.tensor([shift]), torch.tensor([mirrored])),
    )[0]


def test_the_whole_view_is_the_image() -> None:
    x = torch.randn(3, 2, 9, 7, generator=seeded())
    torch.testing.assert_close(random_views(x, (9, 7), WHOLE, each=True, rng=seeded()), x)


@pytest.mark.parametrize("size", [(18, 14), (13, 20), (4, 5)])
def test_another_size_is_the_antialiased_bilinear_one(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 9, 7, generator=seeded())
    expected = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=True)
    seen = random_views(x, size, WHOLE, each=False, rng=seeded())
    torch.testing.assert_close(seen[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])


def test_a_crop_is_the_resize_of_a_slice() -> None:
    x = torch.randn(1, 1, 1, 12, generator=seeded())
    expected = F.interpolate(x[..., 3:8], size=(1, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(x[0, 0, 0] @ weights(12, 12, start=3, length=5), expected[0, 0, 0])


def test_shifts_and_mirror_images_only_move_pixels() -> None:
    x = torch.arange(6.0)
    assert (x @ weights(6, 6, shift=2)).tolist() == [4, 5, 0, 1, 2, 3]
    assert (x @ weights(6, 6, mirrored=True)).tolist() == [5, 4, 3, 2, 1, 0]


def test_draws_are_for_each_image_or_for_all() -> None:
    x = torch.randn(1, 1, 8, 8, generator=seeded()).expand(6, -1, -1, -1)
    ranges = Ranges(crop=0.2, roll=0.2, flip=True)
    of_all = random_views(x, (8, 8), ranges, each=False, rng=seeded())
    of_each = random_views(x, (8, 8), ranges, each=True, rng=seeded())
    assert all(torch.equal(view, of_all[0]) for view in of_all)
    assert len({tuple(view.flatten().tolist()) for view in of_each}) == 6


def test_crops_keep_at_least_the_smallest_area() -> None:
    places = torch.arange(100.0).expand(200, 1, 100, 100)
    seen = random_views(places, (100, 100), Ranges(crop=0.25), each=True, rng=seeded())
    sides = seen.amax((1, 2, 3)) - seen.amin((1, 2, 3))
    assert 48 <= sides.min() < 60
    assert 90 < sides.max() <= 99


@pytest.mark.parametrize(("before", "after"), [(8, 8), (5, 9), (4, 6)])
def test_an_enlarged_part_is_the_mean_of_a_triangle_too(before: int, after: int) -> None:
    for start, length in ((0.0, before), (0.3, before - 0.9), (before - 1.0, 1.0)):
        found = weights(before, after, start, length)
        position = (start + (torch.arange(after) + 0.5) * length / after - 0.5).clamp(
            math.ceil(start), max(math.ceil(start), math.floor(start + length) - 1)
        )
        expected = (1 - (torch.arange(before)[:, None] - position).abs()).clamp_min(0)
        torch.testing.assert_close(found, expected)
