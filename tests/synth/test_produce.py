import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint
from synth.making.make import labelled_parts, make_shard
from synth.shards.blends import blend
from synth.shards.index import read_index, read_shard
from synth.shards.plan import Plan
from synth.shards.read import decode_shard
from synth.shards.store import Folder
from tests.runs import recipe_for

PLAN = Plan(classes=(1, 4, 7), per_class=4, shard_size=6, seed=3)


def test_the_stored_logits_are_the_teachers_on_the_decoded_png(tiny_run: Path, tiny_teacher: Classifier) -> None:
    store = Folder(tiny_run)
    index = read_index(store)
    samples = read_shard(store, index, index.entries[3])
    with torch.no_grad():
        logits = tiny_teacher(torch.from_numpy(samples.images).float() / 255)
    np.testing.assert_allclose(samples.logits, logits.numpy(), rtol=1e-4, atol=1e-4)
    p = logits.double().softmax(1)
    wanted = p[range(len(samples)), samples.labels]
    entropy = -(p * p.log()).sum(1)
    np.testing.assert_allclose([r["confidence"] for r in samples.records], wanted, atol=1e-4)
    np.testing.assert_allclose([r["entropy"] for r in samples.records], entropy, atol=1e-4)


def test_a_shard_holds_its_jobs_keys_and_labels(tiny_teacher: Classifier) -> None:
    job = PLAN.job(1)
    samples = decode_shard(make_shard(job, recipe_for(tiny_teacher)).data, "s", (1, 28, 28), 10)
    assert samples.keys == [f"{key:09d}" for key in range(6, 12)]
    assert samples.labels.tolist() == job.labels == [1, 4, 7, 1, 4, 7]
    assert {(r["method"], r["seed"]) for r in samples.records} == {("deepinversion", job.seed)}


def test_a_shard_depends_on_job_and_recipe_only(tiny_teacher: Classifier) -> None:
    recipe = recipe_for(tiny_teacher)
    first = make_shard(PLAN.job(0), recipe).data
    torch.manual_seed(123)
    make_shard(PLAN.job(1), recipe)
    assert make_shard(PLAN.job(0), recipe).data == first
    other_seed = dataclasses.replace(PLAN, seed=4)
    other_settings = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, steps=3))
    assert images_of(make_shard(other_seed.job(0), recipe).data) != images_of(first)
    assert images_of(make_shard(PLAN.job(0), other_settings).data) != images_of(first)


def images_of(shard: bytes) -> list[object]:
    return decode_shard(shard, "s", (1, 28, 28), 10).images.tolist()


def test_blends_follow_their_image_and_name_their_partner(tiny_teacher: Classifier) -> None:
    plan = dataclasses.replace(PLAN, blends=3)
    plain = decode_shard(make_shard(PLAN.job(1), recipe_for(tiny_teacher)).data, "s", (1, 28, 28), 10)
    mixed = decode_shard(make_shard(plan.job(1), recipe_for(tiny_teacher)).data, "s", (1, 28, 28), 10)
    np.testing.assert_array_equal(mixed.images[::4], plain.images)
    assert mixed.labels.tolist() == [label for label in plain.labels.tolist() for _ in range(4)]
    assert [("partner_class" in r, "share" in r) for r in mixed.records] == [(False,) * 2, *[(True,) * 2] * 3] * 6
    assert set(mixed.partners.tolist()) <= set(plan.classes)


def test_a_blend_is_the_weighted_mean_of_its_image_and_another() -> None:
    # Images of one grey each: a shift leaves them as they are, so the blend is known exactly.
    images = torch.tensor([0, 50, 100, 200], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 20, 20)
    pixels, partners, shares = blend(images, 5, torch.Generator().manual_seed(0))
    own = images.repeat_interleave(6, dim=0).float()
    weight = shares[:, None, None, None]
    assert torch.equal(pixels, (weight * own + (1 - weight) * images[partners]).round().to(torch.uint8))
    assert (shares[::6] == 1).all()
    blends = torch.arange(24) % 6 > 0
    assert ((shares[blends] >= 0.5) & (shares[blends] < 1)).all()
    assert (partners[blends] != (torch.arange(24) // 6)[blends]).all()


@pytest.mark.parametrize("side", [4, 20])  # at 4 pixels nothing is shifted
def test_blends_computed_in_slices_are_those_computed_at_once(side: int) -> None:
    images = torch.randint(0, 256, (30, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    whole = blend(images, 3, torch.Generator().manual_seed(0), at_once=90)
    for at_once in (1, 7):
        sliced = blend(images, 3, torch.Generator().manual_seed(0), at_once)
        assert all(torch.equal(a, b) for a, b in zip(sliced, whole, strict=True))


def test_blends_are_shifted_by_at_most_a_tenth_of_the_side() -> None:
    images = torch.zeros(2, 1, 20, 20, dtype=torch.uint8)
    images[:, :, 10, 10] = 255
    pixels, _, _ = blend(images, 40, torch.Generator().manual_seed(0))
    lit = pixels[torch.arange(82) % 41 > 0].nonzero()
    assert lit[:, 2:].min() == 8
    assert lit[:, 2:].max() == 12


def test_a_teacher_that_gives_nan_is_refused(tiny_teacher_path: Path) -> None:
    teacher = load_checkpoint(tiny_teacher_path)
    with torch.no_grad():
        teacher.net.classifier.bias[0] = float("nan")  # type: ignore[index, union-attr]
    images = torch.zeros(6, 1, 28, 28, dtype=torch.uint8)
    with pytest.raises(UserError, match="NaN or infinite logits"):
        next(labelled_parts(teacher, images, PLAN.job(0), "deepinversion", torch.Generator()))
