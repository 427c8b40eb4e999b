import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.file import load_checkpoint
from synth.making.label import labelled_parts, to_float16
from synth.making.make import Recipe, make_shard
from synth.shards.index import read_index, read_shard
from synth.shards.plan import IMAGE_FORMATS, Plan
from synth.shards.read import decode_shard
from synth.shards.samples import Layout, Samples
from synth.shards.store import Folder
from synth.shards.view_recipes import COLUMNS, MIRRORED, PARTNER
from synth.shards.views import compose
from tests.runs import QUICKEST, recipe_for

PLAN = Plan(classes=(1, 4, 7), per_class=4, shard_size=6, seed=3)
LAYOUT = Layout((1, 28, 28), 10)


def test_the_stored_logits_are_the_teachers_on_the_decoded_png(tiny_run: Path, tiny_teacher: Classifier) -> None:
    store = Folder(tiny_run)
    index = read_index(store)
    samples = read_shard(store, index, index.entries[3])
    with torch.no_grad():
        logits = tiny_teacher(torch.from_numpy(samples.images).float() / 255)
    np.testing.assert_allclose(samples.logits[:, 0], logits.numpy(), rtol=1e-3, atol=1e-3)
    p = logits.double().softmax(1)
    wanted = p[range(len(samples)), samples.labels]
    entropy = -(p * p.log()).sum(1)
    np.testing.assert_allclose([r["confidence"] for r in samples.records], wanted, atol=1e-4)
    np.testing.assert_allclose([r["entropy"] for r in samples.records], entropy, atol=1e-4)


def test_a_shard_holds_its_jobs_keys_and_labels(tiny_teacher: Classifier) -> None:
    job = PLAN.job(1)
    samples = decode_shard(make_shard(job, recipe_for(tiny_teacher)).data, "s", LAYOUT)
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
    return decode_shard(shard, "s", LAYOUT).images.tolist()


@pytest.mark.parametrize("image_format", IMAGE_FORMATS)
def test_the_stored_answers_are_the_teachers_on_the_views_that_a_reader_composes(
    tiny_teacher: Classifier, image_format: str
) -> None:
    plan = dataclasses.replace(PLAN, views=3, view_crop=0.5, image_format=image_format)
    samples = made(tiny_teacher, plan)
    rows = torch.from_numpy(samples.views[..., PARTNER]).long() - int(samples.numbers[0])
    images, views = torch.from_numpy(samples.images), torch.from_numpy(samples.views)
    for view in range(3):
        pixels = compose(images, images[rows[:, view]], views[:, view])
        np.testing.assert_allclose(samples.logits[:, 1 + view], predict(tiny_teacher, pixels), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(samples.logits[:, 0], predict(tiny_teacher, images), rtol=1e-3, atol=1e-3)


def test_views_change_neither_images_nor_classes(tiny_teacher: Classifier) -> None:
    plain, seen = made(tiny_teacher, PLAN), made(tiny_teacher, dataclasses.replace(PLAN, views=3))
    np.testing.assert_array_equal(seen.images, plain.images)
    assert (seen.labels.tolist(), seen.keys) == (plain.labels.tolist(), plain.keys)
    assert (seen.views.shape, plain.views.shape) == ((6, 3, COLUMNS), (6, 0, COLUMNS))


def test_views_are_mirrored_where_the_methods_images_are(tiny_teacher: Classifier) -> None:
    plan = dataclasses.replace(PLAN, views=20)
    flipped = recipe_for(tiny_teacher, dataclasses.replace(QUICKEST, flip=True))
    shares = [made(tiny_teacher, plan, recipe).views[..., MIRRORED].mean() for recipe in (None, flipped)]
    assert shares[0] == 0
    assert 0.3 < shares[1] < 0.7


def test_a_shard_of_jpegs_holds_nearly_the_same_images(tiny_teacher: Classifier) -> None:
    plain, lossy = made(tiny_teacher, PLAN), made(tiny_teacher, dataclasses.replace(PLAN, image_format="jpg"))
    difference = np.abs(plain.images.astype(int) - lossy.images)
    assert 0 < difference.mean() < 3  # grey levels


def made(teacher: Classifier, plan: Plan, recipe: Recipe | None = None) -> Samples:
    """The samples of the plan's second shard."""
    layout = Layout((1, 28, 28), 10, plan.views, plan.image_format)
    return decode_shard(make_shard(plan.job(1), recipe or recipe_for(teacher)).data, "s", layout)


def test_answers_that_overflow_float16_keep_their_softmax() -> None:
    logits = torch.tensor([[65504.0, 0.0], [65505.0, 65504.0], [2e5, 0.0], [-3e38, -3e38], [1.0, -2.0]])
    stored = to_float16(logits)
    assert stored.dtype == torch.float16
    assert torch.equal(stored.float().softmax(1), logits.softmax(1))
    assert torch.equal(stored[[0, 4]].float(), logits[[0, 4]])


def test_a_teacher_that_gives_nan_is_refused(tiny_teacher_path: Path) -> None:
    teacher = load_checkpoint(tiny_teacher_path)
    with torch.no_grad():
        teacher.net.classifier.bias[0] = float("nan")  # type: ignore[index, union-attr]
    images = torch.zeros(6, 1, 28, 28, dtype=torch.uint8)
    with pytest.raises(UserError, match="NaN or infinite logits"):
        next(labelled_parts(teacher, images, PLAN.job(0), "deepinversion", False, torch.Generator()))
