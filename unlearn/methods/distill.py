"""Filtered distillation: a student from scratch, on the teacher's stored logits with the forget classes taken out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from synth.basics.errors import HopelessError
from synth.checkpoint.augment import shift_and_flip
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier, to_unit
from synth.shards.index import Index, RunCard
from unlearn.methods import losses
from unlearn.methods.method import Part
from unlearn.methods.mixing import mixup
from unlearn.optimise import descend, one_cycle_sgd
from unlearn.samples.filters import EntropyBelow, Filter, ForgetShareBelow, NoForgetLabel
from unlearn.samples.logits import post_filter, without_forget_classes
from unlearn.samples.pool import Batch, ShardPool
from unlearn.settings import DistillSettings


def filters_for(forget: tuple[int, ...], settings: DistillSettings) -> dict[str, Filter]:
    """The filters that samples pass before the student sees them, by the name of what drops a sample."""
    filters: dict[str, Filter] = {
        "forget label": NoForgetLabel(forget),
        "forget probability": ForgetShareBelow(forget, settings.gate),
    }
    if settings.post_filter:  # which corrects the teacher's logits instead, and needs to drop nothing
        filters = {}
    if settings.entropy is not None:
        filters["entropy"] = EntropyBelow(settings.entropy)
    return filters


def fill_in(settings: DistillSettings, run: RunCard) -> DistillSettings:
    """The settings with what depends on the run decided."""
    if settings.shift is not None:
        return settings
    return dataclasses.replace(settings, shift=0 if run.plan.blends else 2)


class Distillation:
    """Minimise KL(q || S(x)), q being the teacher's distribution without the forget classes, for `settings.steps` steps.

    Each shard buys its share of the steps, and the last shard the last step: from a run that is still being written, the
    student trains as far as the published part allows, and the learning rate follows the steps, so the work is the same as on
    a finished run. There the student is a function of the seed; while the run is being written, also of when its shards come.

    Args:
        pools: the same pool each time it has grown; one pool for a finished run.
        card: the student's.
        settings: filled in.
    """

    def __init__(
        self,
        pools: Iterable[ShardPool],
        card: ModelCard,
        forget: tuple[int, ...],
        settings: DistillSettings,
        *,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.pools, self.forget, self.settings, self.device = iter(pools), forget, settings, device
        self.steps = settings.steps
        self.student = Classifier.untrained(card, seed).to(device).train()
        self.optimiser, self.schedule = one_cycle_sgd(self.student, settings.lr, settings.weight_decay, settings.steps)
        self.generator = torch.Generator().manual_seed(seed)
        self.rows = Rows(settings.batch_size, self.generator)
        self.samples: Batch | None = None
        self.index: Index | None = None  # of the shards that are here
        self.counts: dict[str, int] = {}
        self.affordable = 0  # steps, by the shards that are here
        self.parts: dict[str, Part] = {
            "student": self.student,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
            "generator": self.generator,
            "rows": self.rows,
        }

    def step(self, number: int) -> dict[str, Tensor]:
        self.take_in_for(number + 1)
        assert self.samples is not None
        loss = distillation_loss(
            self.student, self.samples, self.rows.next(len(self.samples)), self.forget, self.settings, self.generator
        )
        descend(loss, self.optimiser, self.schedule)
        samples, rate = float(len(self.samples)), float(self.schedule.get_last_lr()[0])
        return {"loss": loss.detach(), "samples": torch.tensor(samples), "lr": torch.tensor(rate, dtype=torch.float64)}

    def take_in_for(self, steps: int) -> None:
        """Take in the shards that so many steps need; all of them where these are all steps."""
        while self.affordable < steps:
            self.take_in(next(self.pools))

    def take_in(self, pool: ShardPool) -> None:
        """Raises HopelessError where the filters leave a complete run too small."""
        self.index, self.counts = pool.index, {"kept": len(pool), **pool.dropped}
        if len(pool) >= 2:
            self.samples = pool.samples().to(self.device)
            share = round(self.steps * pool.share_loaded)
            self.affordable = self.steps if pool.share_loaded == 1 else min(share, self.steps - 1)
        elif pool.share_loaded == 1:
            raise HopelessError(
                f"the filters leave {len(pool)} sample of {pool.store}, and batch norm needs two: loosen --gate or --entropy"
            )


class Rows:
    """Rows of batches, each pass over the samples in a new order, without a small last batch. Starts anew where they grow."""

    def __init__(self, batch_size: int, generator: torch.Generator) -> None:
        self.batch_size, self.generator = batch_size, generator
        self.order = torch.empty(0, dtype=torch.long)
        self.used = 0

    def next(self, count: int) -> Tensor:
        """Numbers below `count`, (min(batch size, count),)."""
        size = min(self.batch_size, count)
        if len(self.order) != count or self.used + size > count:
            self.order, self.used = torch.randperm(count, generator=self.generator), 0
        self.used += size
        return self.order[self.used - size : self.used]

    def state_dict(self) -> dict[str, Any]:
        return {"order": self.order, "used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order, self.used = state["order"], state["used"]


def distillation_loss(
    student: Classifier,
    samples: Batch,
    rows: Tensor,
    forget: tuple[int, ...],
    settings: DistillSettings,
    generator: torch.Generator,
) -> Tensor:
    """τ² mean_n KL(q_n || softmax(S(x_n) / τ)) on one augmented batch."""
    rows = rows.to(samples.labels.device)
    assert settings.shift is not None, "fill_in decides it"
    x_unit = shift_and_flip(to_unit(samples.images[rows]), settings.shift, settings.flip, generator)
    targets = targets_for(samples.logits[rows], forget, settings)
    x_unit, targets = mixup(x_unit, targets, settings.mixup, generator)
    return losses.divergence(targets, student(x_unit), settings.temperature)


def targets_for(logits: Tensor, forget: tuple[int, ...], settings: DistillSettings) -> Tensor:
    """What the student is to say of samples with these teacher logits, (N, K)."""
    if settings.post_filter:
        return (post_filter(logits, forget, temperature=settings.temperature) / settings.temperature).softmax(1)
    targets = without_forget_classes(logits, forget, settings.temperature)
    return losses.one_hot(targets.argmax(1), targets.shape[1]) if settings.hard_labels else targets
