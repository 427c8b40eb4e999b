"""Recognition under copies."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from synth.checkpoint.classifier import Classifier
from synth.making.copies import COPIES, EVERY, counted, recognised, recognised_in_some, share_recognised
from tests.runs import digits_card, train_on_digits


def photo(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 28, 20), (1, 3, 1, 1), (1, 2, 5, 3)])
def test_a_copy_keeps_shape_and_range_and_is_the_same_each_time(name: str, shape: tuple[int, ...]) -> None:
    x = photo(*shape)
    copy = COPIES[name](x)
    assert copy.shape == x.shape
    assert -1e-6 <= copy.min() <= copy.max() <= 1 + 1e-6
    assert torch.equal(copy, COPIES[name](photo(*shape)))


def test_each_copy_is_what_its_name_says() -> None:
    x = photo(1, 3, 32, 32)
    assert torch.equal(COPIES["mirrored"](x)[..., 0], x[..., -1])
    shifted = COPIES["shifted"](x)
    assert torch.equal(shifted[..., 2:, 2:], x[..., :-2, :-2])
    assert torch.equal(shifted[..., 0, 2:], x[..., 0, :-2])  # the border is repeated
    edge = torch.zeros(1, 1, 32, 32)
    edge[..., :2, :] = 1
    assert COPIES["cropped"](edge).max() < 1e-6  # the border is cut off
    checks = torch.zeros(1, 1, 32, 32)
    checks[..., ::2, ::2] = checks[..., 1::2, 1::2] = 1
    assert COPIES["halved"](checks)[..., 2:-2, 2:-2].std() < 0.05  # detail of single pixels is gone
    grey = COPIES["grey"](x)
    assert torch.equal(grey[:, 0], grey[:, 2])
    assert torch.equal(COPIES["grey"](x[:, :1]), x[:, :1])


def test_of_grey_images_neither_mirrored_nor_grey_copies_count() -> None:
    assert counted(3) == ("mirrored", "shifted", "cropped", "halved", "grey")
    assert counted(1) == ("shifted", "cropped", "halved")


class Left(nn.Module):
    """Class 1 if the left half is brighter than the right one, otherwise class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=3)
        return torch.stack([right.mean((1, 2, 3)), left.mean((1, 2, 3))], dim=1) * self.one


def test_votes_are_by_copy_and_image() -> None:
    card = digits_card(class_names=("right", "left"), input_shape=(3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    images[0, ..., :4], images[1, ..., 4:] = 255, 255
    labels = torch.tensor([1, 0])
    votes = recognised(Classifier(Left(), card), images, labels)
    assert {name: vote.tolist() for name, vote in votes.items()} == {name: [name != "mirrored"] * 2 for name in COPIES}
    assert share_recognised(Classifier(Left(), card), images, labels).tolist() == [0.8, 0.8]


def test_digits_are_recognised_under_copies_and_noise_that_the_teacher_is_sure_of_is_not(
    tiny_teacher: Classifier,
) -> None:
    pixels, targets = load_digits(return_X_y=True)
    small = torch.tensor(pixels[:200], dtype=torch.float32).view(-1, 1, 8, 8) / 16
    digits, labels = nn.functional.interpolate(small, size=28, mode="bilinear"), torch.tensor(targets[:200])
    noise = attacked(tiny_teacher, torch.rand(200, 1, 28, 28, generator=torch.Generator().manual_seed(0)), labels)
    assert share_recognised(tiny_teacher, digits, labels).mean() > 0.9
    assert share_recognised(tiny_teacher, noise, labels).mean() < 0.7


def attacked(teacher: Classifier, x_unit: Tensor, labels: Tensor) -> Tensor:
    """The images changed a little, by the sign of the gradient, until the teacher calls most of them by the labels."""
    x_unit = x_unit.clone().requires_grad_(True)
    for _ in range(20):
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(teacher(x_unit), labels), x_unit)
        x_unit = (x_unit - gradient.sign() / 100).clamp(0, 1).detach().requires_grad_(True)
    assert (teacher(x_unit).argmax(1) == labels).double().mean() > 0.9
    return x_unit.detach()


def test_one_image_in_twenty_is_judged_and_the_seed_chooses_it() -> None:
    model = train_on_digits(digits_card(), steps=1)
    images = torch.randint(0, 256, (3 * EVERY - 1, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(len(images)) % 10
    votes = recognised_in_some(model, images.to(torch.uint8), labels, seed=3)
    assert votes.shape == (3, 3)
    assert torch.equal(votes, recognised_in_some(model, images.to(torch.uint8), labels, seed=3))
    assert recognised_in_some(model, images[:1].to(torch.uint8), labels[:1], seed=3).shape == (3, 1)
