"""Small teachers and small runs, made the way the product makes them."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import checkpoint_bytes, parse_checkpoint
from synth.executors.executor import Executor, Made, in_process
from synth.executors.handover import StagingArea, make_and_hand_over
from synth.making.make import Recipe, make_shard
from synth.methods.deepinversion_settings import DeepInversionSettings
from synth.run.publish import open_run, provide_generator, publish
from synth.run.request import run_card
from synth.shards.index import Index, RunCard
from synth.shards.plan import Plan, ShardJob
from synth.shards.store import Folder

QUICK = DeepInversionSettings(steps=30, batch_size=25, coarse_steps=0)
QUICKEST = dataclasses.replace(QUICK, steps=2)


def digits_card(**changes: Any) -> ModelCard:
    """A card of a half-width LeNet5 for 28x28 digits."""
    facts: dict[str, Any] = {
        "architecture": "lenet5",
        "width": 0.5,
        "class_names": tuple(str(c) for c in range(10)),
        "input_shape": (1, 28, 28),
        "mean": (0.3,),
        "std": (0.35,),
    }
    return ModelCard(**{**facts, **changes})


def train_on_digits(card: ModelCard, steps: int = 60, seed: int = 0) -> Classifier:
    """A classifier of the card's kind after a few steps on scikit-learn's digits, frozen. A second at 60 steps."""
    pixels, targets = load_digits(return_X_y=True)
    small = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    x_unit = F.interpolate(small, size=card.input_shape[1:], mode="bilinear", align_corners=False)
    labels = torch.tensor(targets)
    model = Classifier.untrained(card, seed).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(len(labels), (128,), generator=rng)
        optimiser.zero_grad()
        F.cross_entropy(model(x_unit[rows]), labels[rows]).backward()
        optimiser.step()
    return model.freeze()


def recipe_for(model: Classifier, settings: Any = QUICKEST) -> Recipe:
    return Recipe(checkpoint_bytes(model), None, "deepinversion", settings, "cpu", threads=1)


def card_for(recipe: Recipe, plan: Plan) -> RunCard:
    """The run card that `synth generate --address none --threads 1` would write."""
    teacher = parse_checkpoint(recipe.checkpoint, "the teacher", recipe.trusted_architecture)
    return run_card(teacher, recipe, plan)


def make_run(
    path: Path, recipe: Recipe, plan: Plan, execute: Executor = in_process, resume: bool = False, by: str = "head"
) -> tuple[Folder, Index]:
    """A complete run in `path`. `by` is who writes its shards."""
    store = Folder(path)
    index = open_run(store, card_for(recipe, plan), resume=resume, overwrite=False)
    if not index.complete:
        index, recipe = provide_generator(store, index, recipe, execute, lambda line: None)
    return store, publish(store, index, recipe, execute, lambda samples: None, by=by)


def in_worker(
    jobs: Iterable[ShardJob], recipe: Recipe, begun: bool = False, area: StagingArea | None = None
) -> Generator[Made, None, None]:
    """An executor in this process that hands shards over as a worker on another machine does."""
    for job in jobs:
        handover = make_and_hand_over(job, partial(make_shard, job, recipe), area)
        yield Made(job, handover.data, gate=handover.gate)


EXECUTORS = {"head": in_process, "workers": in_worker}  # by who writes the shards


def synth_command(*arguments: object) -> list[str]:
    """`synth ...` as a process of its own."""
    return [sys.executable, "-m", "synth", *map(str, arguments)]


def generate_options(recipe: Recipe, plan: Plan) -> list[str]:
    """The options of `synth generate` that make the shards of the plan by the recipe."""
    options = {"method": recipe.method, "threads": recipe.threads, "device": recipe.device, **vars(plan)}
    options["classes"] = ",".join(map(str, plan.classes))
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    for name, value in dataclasses.asdict(recipe.settings).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            flags.append(f"--{flag}={value}")
    return flags


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a folder, hidden ones too, by its name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def bare(in_channels: int, num_classes: int) -> nn.Module:
    """An architecture without batch norm, of somebody's own."""
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 28 * 28, num_classes))


def for_32(in_channels: int, num_classes: int) -> nn.Module:
    """One that takes images of 32x32 alone."""
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 32 * 32, num_classes))


class Tied(nn.Module):
    """One whose two layers have the same weights."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(in_channels * 28 * 28, num_classes)
        self.second = nn.Linear(in_channels * 28 * 28, num_classes)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x.flatten(1)) + self.second(x.flatten(1))
