"""Views are held against a reference in plain Python, pixel by pixel."""

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

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
    first_fault,
    largest_shift,
)
from synth.shards.views import compose, draw_views, plain_views

Pixels = list[list[int]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=seeded(1))


def reference(own: Pixels, partner: Pixels, recipe: list[int]) -> Pixels:
    """One channel of one view."""
    height, width = len(own), len(own[0])

    def moved(image: Pixels, down: int, right: int) -> Pixels:
        return [
            [image[min(max(y - down, 0), height - 1)][min(max(x - right, 0), width - 1)] for x in range(width)]
            for y in range(height)
        ]

    mine = moved(own, recipe[DOWN], recipe[RIGHT])
    other = moved(partner, recipe[PARTNER_DOWN], recipe[PARTNER_RIGHT])
    share = Fraction(recipe[SHARE], 256)
    mixed = [
        [nearest(share * a + (1 - share) * b) for a, b in zip(*lines, strict=True)]
        for lines in zip(mine, other, strict=True)
    ]
    resized = [
        [
            nearest(
                sum(
                    down * right * mixed[y][x]
                    for y, down in taps_of(row, recipe[TOP], recipe[HEIGHT], height)
                    for x, right in taps_of(column, recipe[LEFT], recipe[WIDTH], width)
                )
            )
            for column in range(width)
        ]
        for row in range(height)
    ]
    return [line[::-1] for line in resized] if recipe[MIRRORED] else resized


def nearest(value: Fraction | int) -> int:
    """Rounded, halves up."""
    return int(value + Fraction(1, 2))


def taps_of(place: int, begin: int, length: int, side: int) -> list[tuple[int, Fraction]]:
    """The source pixels of one pixel of a resized span, with their shares: bilinear, in steps of 1/256."""
    centre = max(Fraction(0), (Fraction(2 * place + 1, 2)) * length / side - Fraction(1, 2))
    steps = int(centre * 256)
    first, share = min(steps // 256, length - 1), Fraction(steps % 256, 256)
    second = min(first + 1, length - 1)
    return [(begin + first, 1 - share), (begin + second, share)]


@pytest.mark.parametrize("function", [compose, compose_tensors])
@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 7, 11), (3, 11, 6), (1, 1, 9), (1, 30, 21)])
@pytest.mark.parametrize(("crop", "flip"), [(1.0, False), (0.2, True)])
def test_views_are_those_of_the_reference(
    function: Callable[..., Tensor], shape: tuple[int, int, int], crop: float, flip: bool
) -> None:
    images = noise(4, shape)
    recipes = draw_views(4, 3, 0, (shape[1], shape[2]), crop, flip, seeded()).flatten(0, 1)
    own, partner = images.repeat_interleave(3, dim=0), images[recipes[:, PARTNER].long()]
    expected = [
        [reference(a, b, recipe) for a, b in zip(*pair, strict=True)]
        for *pair, recipe in zip(own.tolist(), partner.tolist(), recipes.tolist(), strict=True)
    ]
    assert torch.equal(function(own, partner, recipes), torch.tensor(expected, dtype=torch.uint8))


@pytest.mark.parametrize("function", [compose, compose_tensors])
def test_the_largest_values_do_not_overflow(function: Callable[..., Tensor]) -> None:
    white = torch.full((2, 3, 9, 9), 255, dtype=torch.uint8)
    recipes = draw_views(2, 1, 0, (9, 9), 0.3, True, seeded())[:, 0]
    recipes[1, SHARE] = WHOLE
    assert torch.equal(function(white, white, recipes), white)


@pytest.mark.parametrize("function", [compose, compose_tensors])
def test_a_plain_view_is_the_image(function: Callable[..., Tensor]) -> None:
    images = noise(5, (3, 8, 9))
    recipes = plain_views(torch.arange(5), (8, 9))
    assert torch.equal(function(images, 255 - images, recipes), images)


@pytest.mark.parametrize("function", [compose, compose_tensors])
def test_views_do_not_depend_on_the_others_beside_them(function: Callable[..., Tensor]) -> None:
    images = noise(20, (3, 96, 80))
    recipes = draw_views(20, 1, 0, (96, 80), 0.5, True, seeded())[:, 0]
    partner = images[recipes[:, PARTNER].long()]
    whole = function(images, partner, recipes)
    for batch in (1, 7):
        parts = [function(images[at], partner[at], recipes[at]) for at in torch.arange(20).split(batch)]
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("function", [compose, compose_tensors])
def test_no_views_are_no_pixels(function: Callable[..., Tensor]) -> None:
    none = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    assert function(none, none, torch.zeros(0, COLUMNS, dtype=torch.int32)).shape == (0, 3, 8, 8)


def test_a_crop_is_the_usual_bilinear_resize_within_a_grey_level() -> None:
    image = noise(1, (3, 20, 30))
    recipe = plain_views(torch.zeros(1), (20, 30))
    recipe[:, [TOP, LEFT, HEIGHT, WIDTH]] = torch.tensor([3, 5, 12, 21], dtype=torch.int32)
    usual = F.interpolate(image[:, :, 3:15, 5:26].float(), (20, 30), mode="bilinear", align_corners=False)
    assert (compose(image, image, recipe).float() - usual).abs().max() < 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_composes_the_same_pixels() -> None:
    images = noise(40, (3, 96, 80))
    recipes = draw_views(40, 1, 0, (96, 80), 0.5, True, seeded())[:, 0]
    partner = images[recipes[:, PARTNER].long()]
    found = compose(images.cuda(), partner.cuda(), recipes)
    assert found.is_cuda
    assert torch.equal(found.cpu(), compose(images, partner, recipes))


@pytest.mark.parametrize("size", [(28, 28), (7, 40), (1, 1), (3, 224)])
@pytest.mark.parametrize("crop", [1.0, 0.5, 1e-9])
def test_drawn_recipes_are_allowed(size: tuple[int, int], crop: float) -> None:
    recipes = draw_views(30, 9, 500, size, crop, True, seeded())
    assert recipes.shape == (30, 9, COLUMNS)
    assert recipes.dtype == torch.int32
    numbers = torch.arange(500, 530).numpy()
    assert first_fault(recipes.numpy(), numbers, size) is None
    assert first_fault(recipes.numpy(), numbers[1:], size) is not None


def test_drawn_recipes_use_their_whole_range() -> None:
    recipes = draw_views(200, 9, 0, (30, 40), 0.5, True, seeded()).flatten(0, 1)
    for column, side in ((DOWN, 30), (RIGHT, 40), (PARTNER_DOWN, 30), (PARTNER_RIGHT, 40)):
        most = largest_shift(side)
        assert sorted(set(recipes[:, column].tolist())) == list(range(-most, most + 1))
    area = recipes[:, HEIGHT] * recipes[:, WIDTH] / 1200
    assert 0.45 < area.min() < 0.55 < 0.95 < area.max() <= 1
    assert 0.4 < recipes[:, MIRRORED].double().mean() < 0.6
    assert recipes[:, SHARE].min() == 128
    assert recipes[:, SHARE].max() == 255


def test_an_image_is_mixed_with_another_one_unless_it_is_alone() -> None:
    recipes = draw_views(5, 50, 70, (8, 8), 1.0, False, seeded())
    own = torch.arange(70, 75)[:, None]
    assert (recipes[..., PARTNER] != own).all()
    assert all(len(set(partners)) == 4 for partners in recipes[..., PARTNER].tolist())
    assert draw_views(1, 3, 70, (8, 8), 1.0, False, seeded())[..., PARTNER].tolist() == [[70, 70, 70]]


def test_without_crop_and_flip_views_show_the_whole_image_unmirrored() -> None:
    recipes = draw_views(20, 9, 0, (12, 14), 1.0, False, seeded()).flatten(0, 1)
    assert recipes[:, [TOP, LEFT, HEIGHT, WIDTH, MIRRORED]].unique(dim=0).tolist() == [[0, 0, 12, 14, 0]]
