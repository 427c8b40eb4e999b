"""Filtered distillation: a student from scratch, on the teacher's stored logits with the forget classes taken out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.augment import shift_and_flip
from synth.console import check_classes
from synth.errors import UsageError, UserError
from synth.index import RunCard
from synth.teacher import Classifier, ModelCard, to_unit
from unlearn.augment import mixup
from unlearn.filters import Filter, entropy_below, forget_gate, post_filter, retain_label, without_forget_classes
from unlearn.settings import DistillSettings
from unlearn.stream import Batch, ShardPool
from unlearn.train import Log, descend, one_cycle_sgd

LOG_EVERY = 100  # steps


def filters_for(forget: tuple[int, ...], settings: DistillSettings) -> dict[str, Filter]:
    """The filters that samples pass before the student sees them, by the name of what drops a sample."""
    filters = {"forget label": retain_label(forget), "forget probability": forget_gate(forget, settings.gate)}
    if settings.post_filter:  # which corrects the teacher's logits instead, and needs to drop nothing
        filters = {}
    if settings.entropy is not None:
        filters["entropy"] = entropy_below(settings.entropy)
    return filters


def fill_in(settings: DistillSettings, run: RunCard) -> DistillSettings:
    """The settings with what depends on the run decided."""
    if settings.shift is not None:
        return settings
    return dataclasses.replace(settings, shift=0 if run.plan.blends else 2)


def student_card(
    run: RunCard,
    forget: tuple[int, ...],
    settings: DistillSettings,
    seed: int,
    architecture: str | None,
    width: float | None,
) -> ModelCard:
    """The student's card: the teacher's shape and normalisation, and an architecture of its own where one is named."""
    return ModelCard(
        architecture=architecture or run.architecture,
        width=width or (run.width if architecture in (None, run.architecture) else 1.0),
        class_names=run.class_names,
        input_shape=run.image_shape,
        mean=run.mean,
        std=run.std,
        training={
            "method": "distill",
            "forget": list(forget),
            "teacher_sha256": run.teacher_sha256,
            "seed": seed,
            "settings": dataclasses.asdict(settings),
        },
    )


def distill(
    pools: Iterable[ShardPool],
    card: ModelCard,
    forget: tuple[int, ...],
    settings: DistillSettings,
    *,
    seed: int = 0,
    device: str = "cpu",
    log: Log = lambda step, values: None,
    report: Callable[[int], None] = lambda steps: None,
) -> tuple[Classifier, dict[str, int]]:
    """Minimise KL(q || S(x)), q being the teacher's distribution without the forget classes, for `settings.steps` steps.

    Each shard buys its share of the steps: from a run that is still being written, the student trains as far as the
    published part allows, and the learning rate follows the steps, so the work is the same as on a finished run.

    Args:
        pools: the same pool each time it has grown; one pool for a finished run.
        card: the student's.
        report: hears the number of steps done since its last call.

    Returns:
        the student, frozen, on the CPU, and the counts of samples kept and dropped.

    Raises:
        UserError: the filters leave too little, or the loss is not a number.
    """
    student = Classifier.untrained(card, seed).to(device).train()
    optimiser, schedule = one_cycle_sgd(student, settings.lr, settings.weight_decay, settings.steps)
    generator = torch.Generator().manual_seed(seed)
    step = 0
    counts: dict[str, int] = {}
    for pool in pools:
        counts = {"kept": len(pool), **pool.dropped}
        affordable = round(settings.steps * pool.share_loaded)
        if len(pool) < 2 or affordable <= step:
            continue
        rows = endless_rows(len(pool), settings.batch_size, generator)
        samples = pool.samples().to(device)
        since = step
        while step < affordable:
            loss = distillation_loss(student, samples, next(rows), forget, settings, generator)
            descend(loss, optimiser, schedule)
            step += 1
            if step % LOG_EVERY == 0 or step == settings.steps:
                if not torch.isfinite(loss):
                    raise UserError(f"the training diverged at step {step} (its loss is not a number): lower --lr")
                log(step, {"loss": loss.item(), "samples": len(samples), "lr": float(schedule.get_last_lr()[0])})
                report(step - since)
                since = step
        if step > since:
            report(step - since)
    return student.freeze().cpu(), counts


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
    log_q = (student(x_unit) / settings.temperature).log_softmax(1)
    return settings.temperature**2 * F.kl_div(log_q, targets, reduction="batchmean")


def targets_for(logits: Tensor, forget: tuple[int, ...], settings: DistillSettings) -> Tensor:
    """What the student is to say of samples with these teacher logits, (N, K)."""
    if settings.post_filter:
        return (post_filter(logits, forget) / settings.temperature).softmax(1)
    return without_forget_classes(logits, forget, settings.temperature)


def check_forget(forget: tuple[int, ...], run: RunCard | ModelCard) -> None:
    """Raise UsageError where the forget classes are not the teacher's, or all of them."""
    check_classes(forget, run.num_classes, "forget class")
    if len(set(forget) & set(range(run.num_classes))) == run.num_classes:
        raise UsageError("every class is to be forgotten: leave at least one to retain")


def endless_rows(count: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of batches, each pass over the samples in a new order, without a small last batch."""
    batch_size = min(batch_size, count)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count // batch_size * batch_size].split(batch_size)
