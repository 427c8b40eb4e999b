import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.file import load_checkpoint
from synth.methods import deepinversion, losses
from synth.methods.deepinversion import augment, blur, image_prior, schedule, synthesise
from synth.methods.deepinversion_settings import PUBLISHED, DeepInversionSettings
from synth.methods.multi_crop import resize, resize_by_products
from tests.runs import QUICK, QUICKEST, digits_card

LABELS = torch.arange(20) % 10


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(**given: float) -> DeepInversionSettings:
    """Settings whose image prior has these weights alone."""
    return dataclasses.replace(QUICK, **{**dict.fromkeys(("tv_l1", "tv_l2", "tv_squared", "l2"), 0.0), **given})


def test_the_image_prior_is_a_loop_over_neighbours() -> None:
    x = torch.randn(2, 3, 5, 4, generator=seeded())
    absolute, euclidean, squared = 0.0, 0.0, 0.0
    for down, right in ((0, 1), (1, 0), (1, -1), (1, 1)):
        pairs = [
            (x[n, c, i, j] - x[n, c, i + down, j + right]).item()
            for n in range(2)
            for c in range(3)
            for i in range(5 - down)
            for j in range(max(0, -right), 4 - max(0, right))
        ]
        absolute += sum(map(abs, pairs)) / len(pairs)
        euclidean += math.sqrt(sum(d * d for d in pairs))
        squared += sum(d * d for d in pairs) / len(pairs)
    length = math.sqrt(sum(v * v for v in x.flatten().tolist()))
    for name, value in (("tv_l1", absolute), ("tv_l2", euclidean), ("tv_squared", squared), ("l2", length)):
        assert image_prior(x, weights(**{name: 1.0})).item() == pytest.approx(value, rel=1e-4)
    both = image_prior(x, weights(tv_l1=2.0, l2=3.0)).item()
    assert both == pytest.approx(2 * absolute + 3 * length, rel=1e-4)


def test_a_flat_image_has_no_total_variation() -> None:
    flat = torch.full((2, 1, 6, 6), 0.7)
    assert image_prior(flat, weights(tv_l1=1.0, tv_l2=1.0, tv_squared=1.0)).item() == 0
    assert image_prior(flat, weights()).item() == 0


def test_a_blurred_image_keeps_its_level_and_loses_its_texture() -> None:
    checkers = (torch.arange(64).view(1, 1, 8, 8) + torch.arange(8).view(1, 1, 8, 1)) % 2 * 1.0
    torch.testing.assert_close(blur(torch.full((2, 3, 8, 8), 0.4), 3), torch.full((2, 3, 8, 8), 0.4))
    assert blur(checkers, 2)[..., 2:-2, 2:-2].std() < 0.1 * checkers.std()
    assert torch.equal(blur(checkers, 0), checkers)


@pytest.mark.parametrize("shape", [(3, 1, 28, 28), (2, 3, 9, 12)])
def test_the_blur_of_a_cpu_is_the_convolution_byte_for_byte(shape: tuple[int, ...]) -> None:
    padded = F.pad(torch.randn(shape, generator=torch.Generator().manual_seed(0)), (1, 1, 1, 1), mode="replicate")
    assert torch.equal(losses.weighted_sum(padded), losses.convolution(padded))


def test_the_schedule_warms_up_and_falls_to_nearly_nothing() -> None:
    settings = dataclasses.replace(QUICK, steps=100, warmup=10)
    factors = [schedule(step, settings) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0 <= factors[-1] < 0.01


def test_augmentation_only_moves_and_mirrors_pixels() -> None:
    x, rng = torch.randn(3, 1, 6, 6, generator=seeded()), seeded(1)
    settings = dataclasses.replace(QUICK, jitter=2, flip=True)
    seen = [augment(x, settings, rng) for _ in range(20)]
    assert all(torch.equal(s.flatten(1).sort().values, x.flatten(1).sort().values) for s in seen)
    assert len({tuple(s.flatten().tolist()) for s in seen}) > 5
    still = dataclasses.replace(QUICK, jitter=0, flip=False)
    assert torch.equal(augment(x, still, rng), x)


@pytest.mark.parametrize("changes", [{}, {"coarse_steps": 1}, {"flip": True, "jitter": 3}, {"bn_loss": "published"}])
def test_images_depend_on_the_random_source_only(tiny_teacher: Classifier, changes: dict[str, object]) -> None:
    settings = dataclasses.replace(QUICKEST, **changes)  # type: ignore[arg-type]
    first = synthesise(tiny_teacher, LABELS, settings, seeded())
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = synthesise(tiny_teacher, LABELS, settings, seeded())
    assert torch.equal(first, again)
    assert torch.equal(before, torch.get_rng_state())  # and global randomness is left alone
    assert not torch.equal(first, synthesise(tiny_teacher, LABELS, settings, seeded(1)))


def test_the_teacher_sees_the_wanted_classes(tiny_teacher: Classifier) -> None:
    settings = dataclasses.replace(QUICK, steps=60)
    images = synthesise(tiny_teacher, LABELS, settings, seeded())
    accuracy = (predict(tiny_teacher, images).argmax(1) == LABELS).float().mean().item()
    assert accuracy > 0.8


def test_more_steps_bring_the_statistics_closer(tiny_teacher: Classifier) -> None:
    from synth.checkpoint.batch_norm import watch_batch_norm

    losses = []
    for steps in (1, 60):
        images = synthesise(tiny_teacher, LABELS, dataclasses.replace(QUICK, steps=steps), seeded())
        with watch_batch_norm(tiny_teacher) as found:
            predict(tiny_teacher, images)
        losses.append(found.normalised_loss().item())
    assert losses[1] < 0.5 * losses[0]


def test_the_published_settings_run(tiny_teacher: Classifier) -> None:
    settings = dataclasses.replace(PUBLISHED, steps=3, warmup=1)
    assert synthesise(tiny_teacher, LABELS, settings, seeded()).float().std() > 0


@pytest.mark.parametrize("bn", [1.0, 0.0])
def test_a_teacher_without_any_normalisation_needs_no_option(bn: float) -> None:
    bare = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), digits_card()).freeze()
    settings = dataclasses.replace(QUICKEST, bn=bn)
    deepinversion.check(bare, settings)
    assert len(synthesise(bare, LABELS, settings, seeded())) == 20


def test_a_diverging_synthesis_is_an_error_of_one_line_and_leaves_no_hook(tiny_teacher_path: object) -> None:
    teacher = load_checkpoint(tiny_teacher_path)  # type: ignore[arg-type]
    with torch.no_grad():
        teacher.net.classifier.bias.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(UserError, match="diverged"):
        synthesise(teacher, LABELS, QUICKEST, seeded())
    assert not any(module._forward_pre_hooks for module in teacher.modules())


@pytest.mark.parametrize(("small", "size"), [((14, 14), (28, 28)), ((16, 16), (33, 33)), ((10, 16), (20, 33))])
def test_resizing_by_products_equals_interpolation(small: tuple[int, int], size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *small, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resize_by_products(x, size), resize(x, size))
