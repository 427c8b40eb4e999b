"""FastDFKD: a meta-generator that a few steps adapt to each batch, together with the batch's noise (Fang et al. 2022).

The paper trains the meta-generator while it makes batches, so that each batch gains from the batches before. Here it is
trained once from the seed, before the first batch, and sent to every worker. Otherwise a batch would depend on the
worker's earlier batches, and so on the number of workers.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from synth.basics.errors import UserError
from synth.basics.settings import MOST_IN_BATCH, MOST_STEPS, setting
from synth.basics.ticks import stage, stages, tick
from synth.checkpoint.arithmetic import computed
from synth.checkpoint.batch_norm import BatchStatistics, watch_batch_norm
from synth.checkpoint.classifier import Classifier
from synth.methods import generator as plain
from synth.methods.generator import GeneratorSettings
from synth.methods.networks import ClassGenerator
from synth.methods.training_time import words_for


@dataclass(frozen=True, kw_only=True)
class FastSettings(GeneratorSettings):
    """FastDFKD (Fang et al. 2022): a meta-generator, trained once, then adapted to each batch together with its noise.

    The defaults are our own. Unlike in the paper, the class is an input of the generator, and its training ends before
    the first batch, so that no batch depends on a worker's earlier batches.
    """

    train_steps: int = setting(500, "training steps of the meta-generator, once per run", at_least=1, most=MOST_STEPS)
    batch_size: int = setting(
        250,
        "images adapted together; classes are mixed, so that the statistics resemble training",
        at_least=4,
        most=MOST_IN_BATCH,
    )
    meta_steps: int = setting(
        20,
        "outer steps of the meta-training that follows, each with `steps` inner steps",
        at_least=0,
        most=MOST_STEPS,
        rare=True,
    )
    meta_lr: float = setting(
        0.1,
        "share of the way to the adapted generator that an outer step takes (Reptile)",
        at_least=0,
        at_most=1,
        rare=True,
    )
    steps: int = setting(
        5, "Adam steps on noise and generator for each batch; the paper's are 2, 5 and 10", at_least=1, most=MOST_STEPS
    )
    z_lr: float = setting(0.02, "Adam's learning rate for the noise", at_least=0, rare=True)
    adapt_lr: float = setting(
        1e-3, "Adam's learning rate for the generator while it adapts to a batch", at_least=0, rare=True
    )


SETTINGS = FastSettings
PRESETS: dict[str, FastSettings] = {}


check = plain.check
instead = plain.instead
uses_generator = plain.uses_generator


def brief(settings: FastSettings, images: int) -> FastSettings:
    """The settings of one step of each kind on this many images, which shows what memory a batch takes."""
    return dataclasses.replace(
        settings, batch_size=images, train_steps=1, meta_steps=min(1, settings.meta_steps), steps=1
    )


def prepare(
    teacher: Classifier,
    settings: FastSettings,
    seed: int,
    student: Classifier | None = None,
    classes: tuple[int, ...] | None = None,
    log: plain.Log = lambda step, values: None,
) -> ClassGenerator:
    """The meta-generator θ of these classes (None means all), frozen, on the teacher's device.

    It is trained as in the generator method, then by Reptile: θ <- θ + ε (θ_k - θ), where θ_k is θ after `steps` steps
    of adaptation to a new batch.
    """
    network = plain.untrained(teacher, settings, seed, student, classes).to(teacher.mean.device)
    rng = torch.Generator().manual_seed(seed)
    meta_training = settings.meta_steps * settings.steps  # steps like those of the training
    plain_share = settings.train_steps / (settings.train_steps + meta_training)
    with stage(0, plain_share):
        plain.train_generator(network, teacher, settings, rng, student, log)
    with computed(teacher, settings), watch_batch_norm(teacher.net) as statistics, stage(plain_share, 1):
        for _ in stages(range(settings.meta_steps)):
            z, labels = plain.draw(network, settings.batch_size, rng)
            adapted, _ = adapt(network, z, labels, teacher, statistics, settings, rng, student)
            with torch.no_grad():
                for ours, theirs in zip(network.parameters(), adapted.parameters(), strict=True):
                    ours.lerp_(theirs, settings.meta_lr)
    return plain.settle(network, settings, torch.Generator().manual_seed(seed))


def training_words(teacher: Classifier, settings: FastSettings, device: str) -> str:
    """How much the training is, and about how long it takes on this device, in words."""
    steps = settings.train_steps + settings.meta_steps * settings.steps
    return words_for(steps, settings.batch_size, device, plain.one_step(teacher, settings))


def synthesise(
    teacher: Classifier,
    labels_B: Tensor,
    settings: FastSettings,
    rng: torch.Generator,
    network: ClassGenerator | None = None,
) -> Tensor:
    """One image per label, uint8 (B, C, H, W) on the CPU. Each batch has its own noise z and a copy θ' of the
    meta-generator:

        min_{z, θ'}  the generator method's loss of G_θ'(z, y), by `steps` steps of Adam.

    Raises:
        UserError: the images are not finite.
    """
    assert network is not None, "prepare trains it"
    batches = max(1, math.ceil(len(labels_B) / settings.batch_size))
    images = []
    with computed(teacher, settings), watch_batch_norm(teacher.net) as statistics:
        for labels in stages(labels_B.tensor_split(batches)):
            z = torch.randn(len(labels), network.card.z, generator=rng).to(teacher.mean.device)
            labels = labels.to(teacher.mean.device)
            adapted, z = adapt(network, z, labels, teacher, statistics, settings, rng, None)
            with torch.no_grad():
                x_norm = adapted(z, labels)
            if not torch.isfinite(x_norm).all():
                raise UserError("the synthesis diverged (its images are not numbers): lower --adapt-lr and --z-lr")
            images.append(plain.to_pixels(teacher, x_norm))
    return torch.cat(images)


def adapt(
    network: ClassGenerator,
    z: Tensor,
    labels: Tensor,
    teacher: Classifier,
    statistics: BatchStatistics,
    settings: FastSettings,
    rng: torch.Generator,
    student: Classifier | None,
) -> tuple[ClassGenerator, Tensor]:
    """A copy of the generator, and the noise, after `steps` steps on this batch. The copy's batch norm uses the batch's
    statistics.
    """
    adapted = copy.deepcopy(network).train().requires_grad_(True)
    z = z.clone().requires_grad_(True)
    groups = [{"params": [z], "lr": settings.z_lr}, {"params": list(adapted.parameters()), "lr": settings.adapt_lr}]
    optimiser = torch.optim.Adam(groups, betas=(0.5, 0.999))
    for step in range(settings.steps):
        optimiser.zero_grad(set_to_none=True)
        x_norm = adapted(z, labels)
        terms = plain.objective(x_norm, z, labels, teacher, statistics, settings, rng, student)
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        tick(step + 1, settings.steps)
    return adapted, z.detach()
