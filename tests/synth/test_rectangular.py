"""Images whose height and width differ, from the checkpoint to the student."""

import dataclasses
from pathlib import Path

import pytest
import torch

from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import STUDENT
from synth.methods.deepinversion_settings import DeepInversionSettings
from synth.methods.fast import FastSettings
from synth.methods.generator import GeneratorSettings
from synth.methods.networks import Generator
from synth.shards.index import read_shard
from synth.shards.plan import Plan
from tests.runs import make_run, recipe_for
from unlearn.methods.distill import LOOP
from unlearn.methods.distill_settings import DistillSettings
from unlearn.run.carry_out import Request, unlearn

CARD = ModelCard(
    architecture="allcnn",
    width=0.1,
    class_names=("a", "b", "c"),
    input_shape=(3, 12, 20),
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
)
SETTINGS = {
    "deepinversion": DeepInversionSettings(steps=2, batch_size=3, coarse_steps=1),
    "fast": FastSettings(train_steps=2, meta_steps=1, steps=2, batch_size=4),
    "generator": GeneratorSettings(train_steps=2, batch_size=4),
}


@pytest.mark.parametrize("method", SETTINGS)
def test_shards_of_rectangular_images_are_made_and_learned(method: str, tmp_path: Path) -> None:
    teacher = Classifier.untrained(CARD, 0).freeze()
    recipe = dataclasses.replace(recipe_for(teacher, SETTINGS[method]), method=method)
    store, index = make_run(tmp_path / "shards", recipe, Plan(classes=(0, 1, 2), per_class=2, shard_size=6))
    samples = read_shard(store, index, index.entries[0])
    assert samples.images.shape[1:] == (3, 12, 20)
    request = Request(
        method="distill",
        settings=DistillSettings(steps=2, batch_size=4, gate=1.0),
        loop=LOOP,
        shards=str(tmp_path / "shards"),
        forget=(0,),
        out=tmp_path / "student",
    )
    unlearn(request, lambda line: None)
    assert (tmp_path / "student" / STUDENT).exists()


def test_the_generator_of_gkt_draws_rectangles() -> None:
    x = Generator.untrained(8, 4, (3, 10, 23), seed=0)(torch.randn(2, 8))
    assert x.shape == (2, 3, 10, 23)
