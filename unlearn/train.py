"""Supervised training on real images: teachers, and the retrained reference that never sees the forgotten classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.basics.errors import UsageError, UserError
from synth.basics.progress import Say
from synth.basics.settings import ComputeSettings, setting
from synth.checkpoint.arithmetic import computed
from synth.checkpoint.augment import shift_and_flip
from synth.checkpoint.card import ModelCard, check_classes
from synth.checkpoint.classifier import Classifier, check_forward, to_unit
from synth.checkpoint.file import save_checkpoint
from unlearn.data import DataSource, LabelledImages, normalisation
from unlearn.evaluate import evaluate_model


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ComputeSettings):
    """Supervised training of a teacher or a retrained reference: SGD with momentum and a one-cycle learning rate."""

    epochs: int = setting(10, "passes over the training images", at_least=1)
    batch_size: int = setting(128, "images a step", at_least=2)
    lr: float = setting(0.1, "peak learning rate", above=0)
    weight_decay: float = setting(5e-4, "L2 penalty on the weights", at_least=0, rare=True)
    shift: int | None = setting(
        None, "largest random shift in pixels; by default 4 on natural images, else 0", at_least=0, at_most=64
    )
    flip: bool | None = setting(None, "mirror images at random; by default on natural images only")


def train(
    architecture: str,
    width: float,
    source: DataSource,
    without: tuple[int, ...],
    out: Path,
    seed: int,
    device: str,
    settings: TrainSettings,
    say: Say,
) -> None:
    data, test = source.load("train"), source.load("test")  # both before any work
    check_classes(without, len(data.class_names), "class", "the data")
    if len(set(without)) == len(data.class_names):
        raise UsageError("--without leaves no class to train on: leave at least one out of it")
    for split, images in (("training", data), ("test", test)):
        check_every_class(images, split, without, source.name)
    model = train_classifier(
        data,
        architecture,
        settings,
        width=width,
        without=without,
        seed=seed,
        device=device,
        data_name=source.name,
        log=lambda epoch, values: say(f"epoch {epoch} of {settings.epochs}: loss {values['loss']:.4f}"),
    )
    digest = save_checkpoint(model, out)
    result = evaluate_model(model, test, without)
    forgotten = "" if result.forget is None else f", the classes left out {result.forget:.2f} %"
    say(f"wrote {out} (sha256 {digest[:12]}): test accuracy {result.retain:.2f} %{forgotten}")


def check_every_class(images: LabelledImages, split: str, without: tuple[int, ...], name: str) -> None:
    there = set(images.labels.tolist())
    for c, class_name in enumerate(images.class_names):
        if c not in there and c not in without:
            raise UsageError(
                f"{name} has no {split} image of class '{class_name}': add some, or train without it (--without {c})"
            )


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
    mean, std = normalisation(kept.images)  # a reference may not see the other images, not even their mean
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
