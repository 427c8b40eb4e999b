"""Supervised training on real images: teachers, and the retrained reference that never sees the forgotten classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.augment import shift_and_flip
from synth.compute import computed
from synth.errors import UsageError, UserError
from synth.teacher import Classifier, ModelCard, check_forward, to_unit
from unlearn.data import LabelledImages, normalisation
from unlearn.settings import TrainSettings

Log = Callable[[int, dict[str, float]], None]


def train_classifier(
    data: LabelledImages,
    architecture: str,
    settings: TrainSettings,
    *,
    width: float = 1.0,
    without: tuple[int, ...] = (),
    seed: int = 0,
    device: str = "cpu",
    data_name: str = "",
    log: Log = lambda step, values: None,
) -> Classifier:
    """A classifier trained on the images whose class is not in `without`; its outputs keep all classes.

    Raises:
        UsageError: nothing is left to train on, or the architecture doesn't take these images.
        UserError: the training diverged.
    """
    kept = data.without(without)
    if len(kept) < settings.batch_size:
        raise UsageError(f"only {len(kept)} training images are left for a batch of {settings.batch_size}")
    mean, std = normalisation(data.images)
    card = ModelCard(
        architecture=architecture,
        width=width,
        class_names=data.class_names,
        input_shape=tuple(data.images.shape[1:]),  # type: ignore[arg-type]
        mean=mean,
        std=std,
        training={
            "data": data_name,
            "without": list(without),
            "images": len(kept),
            "seed": seed,
            "settings": dataclasses.asdict(settings),
        },
    )
    model = Classifier.untrained(card, seed)
    check_forward(model, "choose another --arch, or with a folder of images another --image-size")
    model = model.to(device).train()
    with computed(model, settings):
        fit(model, kept, settings, torch.Generator().manual_seed(seed), log)
    return model.freeze()


def fit(model: Classifier, data: LabelledImages, settings: TrainSettings, generator: torch.Generator, log: Log) -> None:
    """Train in place. Full batches only, so that batch norm never sees a tiny last one."""
    device = model.mean.device
    flip = data.natural if settings.flip is None else settings.flip
    shift = (4 if data.natural else 0) if settings.shift is None else settings.shift
    images, labels = data.images.to(device), data.labels.to(device)
    batches = len(data) // settings.batch_size
    optimiser, schedule = one_cycle_sgd(model, settings.lr, settings.weight_decay, settings.epochs * batches)
    for epoch in range(settings.epochs):
        order = torch.randperm(len(data), generator=generator).to(device)
        total = torch.zeros((), device=device)
        for rows in order[: batches * settings.batch_size].split(settings.batch_size):
            x_unit = shift_and_flip(to_unit(images[rows]), shift, flip, generator)
            loss = F.cross_entropy(model(x_unit), labels[rows])
            descend(loss, optimiser, schedule)
            total += loss.detach()
        mean_loss = total.item() / batches
        if mean_loss != mean_loss:
            raise UserError(f"the training diverged in epoch {epoch + 1} (its loss is not a number): lower --lr")
        log(epoch + 1, {"loss": mean_loss})


def one_cycle_sgd(
    model: torch.nn.Module, lr: float, weight_decay: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """SGD with Nesterov momentum 0.9; its rate rises for the first fifth of the steps, then falls to 0 (Smith 2018)."""
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    rise = max(1, steps // 5)

    def factor(step: int) -> float:
        return (step + 1) / rise if step < rise else max(0.0, (steps - step) / max(1, steps - rise))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def descend(loss: Tensor, optimiser: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    schedule.step()
