"""What a step of DeepInversion costs on photographs, beside the forward and backward pass of the frozen network."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from importlib import import_module
from statistics import median
from unittest.mock import patch

import torch
from torch import Tensor

from synth.checkpoint.arithmetic import choose, computed
from synth.checkpoint.batch_norm import batch_norm_layers
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.methods import deepinversion
from synth.methods.deepinversion_settings import PHOTO, DeepInversionSettings

STEPS = 20  # that are timed together; a graph's rehearsals come before
WHOLE = dataclasses.replace(PHOTO, coarse_steps=0)  # every step at the whole resolution
LITE = ("lite0", "lite1", "lite2")


def network(name: str, side: int, device: str) -> Classifier:
    """An untrained network for photographs of this side, frozen, with plausible batch-norm statistics.

    Args:
        name: an architecture as `unlearn train --arch` takes it, or lite0 to lite2 of `efficientnet_lite_pytorch`.
    """
    shape, names = (3, side, side), tuple(map(str, range(1000)))
    card = ModelCard(architecture=name, class_names=names, input_shape=shape, mean=(0.5,) * 3, std=(0.25,) * 3)
    if name in LITE:
        module = import_module("efficientnet_lite_pytorch").EfficientNet
        teacher = Classifier(module.from_name(f"efficientnet-{name}"), card)
    else:
        teacher = Classifier.untrained(card, 0)
    settle(teacher.to(device))
    return teacher.freeze()


@torch.no_grad()
def settle(teacher: Classifier) -> None:
    """Set the running statistics to those of a batch of noise."""
    layers = batch_norm_layers(teacher.net)
    for layer in layers:
        layer.momentum = 1.0
    rng = torch.Generator().manual_seed(9)
    if layers:
        teacher.net.train()(torch.randn(8, *teacher.card.input_shape, generator=rng).to(teacher.mean.device))
    for layer in layers:
        layer.momentum = 0.1


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds of one step, median over the rounds. Each round measures all of them in turn."""

    plain: float  # the forward and backward pass
    single: float  # a step, each kernel launched on its own
    replayed: float | None  # a step as a CUDA graph; None without CUDA

    @property
    def step(self) -> float:
        return self.single if self.replayed is None else self.replayed


def measure(teacher: Classifier, batch: int, rounds: int, steps: int = STEPS) -> Cost:
    """What a step and a plain pass on `batch` images cost, with the settings for photographs at the full resolution."""
    device = teacher.mean.device
    settings = dataclasses.replace(WHOLE, steps=steps, batch_size=batch)
    labels = torch.arange(batch, device=device) % teacher.card.num_classes
    runs: dict[str, Callable[[], object]] = {
        "plain": lambda: plain_passes(teacher, labels, settings),
        "single": lambda: descent(teacher, labels, settings, graph=False),
    }
    if device.type == "cuda":
        runs["replayed"] = lambda: descent(teacher, labels, settings, graph=True)
    for run in runs.values():
        run()
    seconds = {name: median(times) / steps for name, times in in_turn(runs, rounds, device).items()}
    return Cost(seconds["plain"], seconds["single"], seconds.get("replayed"))


def in_turn(runs: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each run, by name; round by round, so that other work on the machine meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    for _ in range(rounds):
        for name, run in runs.items():
            finish(device)
            begun = clock()
            run()
            finish(device)
            times[name].append(clock() - begun)
    return times


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def plain_passes(teacher: Classifier, labels: Tensor, settings: DeepInversionSettings) -> None:
    """As many forward and backward passes of the frozen network as the settings have steps, in their arithmetic."""
    x_norm = torch.zeros(len(labels), *teacher.card.input_shape, device=teacher.mean.device, requires_grad=True)
    with computed(teacher, settings):
        for _ in range(settings.steps):
            x_norm.grad = None
            torch.nn.functional.cross_entropy(teacher.logits(x_norm), labels).backward()


def descent(teacher: Classifier, labels: Tensor, settings: DeepInversionSettings, graph: bool) -> Tensor:
    """The images after the steps of the settings, uint8 on the CPU, by a CUDA graph or by single launches."""
    worth = deepinversion.worth_a_graph if graph else lambda *given: False
    with patch.object(deepinversion, "worth_a_graph", worth):
        return deepinversion.invert(teacher, labels, settings, torch.Generator().manual_seed(0))


def arithmetic_of(teacher: Classifier) -> str:
    return str(choose(WHOLE, teacher))
