"""Supervised training on real images: teachers, and the retrained reference, which never sees the forgotten classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from synth.basics.errors import UsageError, UserError
from synth.basics.progress import Progress, Say, counted
from synth.basics.settings import MOST_IN_BATCH, MOST_STEPS, ComputeSettings, setting
from synth.basics.ticks import listening, tick
from synth.checkpoint.arithmetic import computed
from synth.checkpoint.augment import shift_and_flip
from synth.checkpoint.building import refuse_unknown
from synth.checkpoint.card import ModelCard
from synth.checkpoint.class_choice import Classes, as_options
from synth.checkpoint.classifier import Classifier, check_forward, to_unit
from synth.checkpoint.file import load_checkpoint, read_card, save_checkpoint
from synth.checkpoint.public_start import PublicStart, read_public
from synth.checkpoint.range_choice import choose, words_for
from synth.checkpoint.wiring import Wiring
from unlearn.data import DataSource, LabelledImages, check_data, normalisation, reordered
from unlearn.evaluation import evaluate_model
from unlearn.fine_tuning import train_mode
from unlearn.optimise import ONE_CYCLE, Log, descend
from unlearn.points import leave_out, load_points, put_in
from unlearn.regression import evaluate_regressor
from unlearn.step_memory import refuse_large_batch

EPOCHS = 10
PHOTO_EPOCHS = 60  # a network that starts from random weights learns photographs slowly


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ComputeSettings):
    """Supervised training of a teacher or a retrained reference: SGD with momentum and a one-cycle learning rate."""

    epochs: int | None = setting(
        None,
        f"passes over the training images; by default {PHOTO_EPOCHS} on colour photographs, else {EPOCHS}; with "
        "--start-from 5",
        at_least=1,
        most=MOST_STEPS,
    )
    batch_size: int = setting(128, "images per step; with --start-from 32", at_least=2, most=MOST_IN_BATCH)
    lr: float = setting(0.1, "peak learning rate; with --start-from 7e-4", above=0)
    weight_decay: float = setting(
        5e-4, "L2 penalty on the weights; with --start-from their decay, 0.01", at_least=0, rare=True
    )
    shift: int | None = setting(
        None, "largest random shift in pixels; by default 4 on natural images, else 0", at_least=0, at_most=64
    )
    flip: bool | None = setting(None, "mirror images at random; by default on natural images only")
    optimiser: str = setting(
        "sgd", "how the weights are moved; with --start-from adamw", choices=("sgd", "adamw"), rare=True
    )
    freeze_batch_norm: bool = setting(
        False,
        "with --start-from, keep the statistics of batch norm that the public weights bring along; images are then "
        "synthesised by the statistics of the public images, not of yours",
        rare=True,
    )


# Where a training starts from public weights. Batch norm learns the statistics of the new images, because the synthesis
# takes them for those of the teacher's images.
FINE_TUNING = TrainSettings(epochs=5, batch_size=32, lr=7e-4, weight_decay=0.01, optimiser="adamw")


NATURAL_SHIFT = 4  # pixels, as usual for CIFAR-10
NOWHERE: AbstractContextManager[Log] = nullcontext(lambda epoch, values: None)


def train(
    architecture: str | None,
    width: float,
    source: DataSource,
    leave_out: Classes,
    out: Path,
    seed: int,
    device: str,
    settings: TrainSettings,
    say: Say,
    logger: AbstractContextManager[Log] = NOWHERE,
    like: Path | None = None,
    start_from: Path | None = None,
    with_points: Path | None = None,
    without_points: Path | None = None,
) -> None:
    """Load the data, train a classifier without the classes `leave_out`, write its checkpoint, and report its test
    accuracy. Of a regressor they are a range of its target, and its errors are reported.

    Args:
        architecture: None for that of `start_from`.
        logger: opened when the training begins. It gives the log for the values of each epoch.
        like: a checkpoint that has the classes in the same order and takes images of the same shape.
        start_from: a checkpoint whose weights the training begins with, instead of random ones.
        with_points: a folder of images (`unlearn.points`) to train on with its labels.
        without_points: a folder of images to leave out.

    Raises:
        UsageError: a class has no images, or `leave_out` names every class or a class that does not exist; or the
            weights of `start_from` do not fit, or know classes of these data that are left out.
        UserError: data is missing or the training diverges.
    """
    if architecture is not None:
        refuse_unknown(architecture)
    card = read_card(like) if like else None
    start = public_start(start_from, architecture) if start_from else None
    shape = card or (start.model.card if start else None)
    data, test = source.load("train", shape), source.load("test", shape)  # both before the training
    without = choose(leave_out, card or data, owner=source.name)
    if card and like:
        data = check_data(card, data, like, source.name, without, say)
        test = check_data(card, test, like, source.name, without)
    else:
        test = in_order_of(data, test, source.name)
    if data.target is None and len(data.class_names) < 2:
        raise UserError(
            f"{source.name} has one class only, '{data.class_names[0]}': a classifier needs two or more, as folders "
            "beside each other in train/ and test/"
        )
    if without:
        say(f"leaves out {words_for(without, data)}")
    if len(without) == len(data.class_names):
        raise UsageError("--without names every class: leave at least one class to train on")
    data, points = with_or_without_points(data, with_points, without_points, source.name, say)
    for split, images in (("training", data), ("test", test)):
        check_every_class(images, split, without, source.name)
    if settings.freeze_batch_norm and not start:
        raise UsageError("--freeze-batch-norm has no effect without --start-from: random weights have no statistics")
    if start:
        refuse_seen(start, without, source.name, like, architecture)
        architecture, width = start.model.card.architecture, start.model.card.width
        say(f"starts from the weights of {start.name}")
    assert architecture is not None, "the command line requires it without a start"

    settings = dataclasses.replace(settings, epochs=(epochs := epochs_of(data, settings)))
    kept = len(data.without(without))
    refuse_few(kept, settings, without)
    say(
        f"trains {architecture} for {counted(epochs, 'epoch')} of {kept // settings.batch_size:,} steps, on "
        f"{counted(kept, 'image')}; the time is known after the first steps"
    )
    with logger as log, shown_steps(epochs * (kept // settings.batch_size)):

        def report(epoch: int, values: dict[str, float]) -> None:
            say(f"epoch {epoch} of {epochs}: loss {values['loss']:.4f}")
            log(epoch, values)

        model = train_classifier(
            data,
            architecture,
            settings,
            width=width,
            without=without,
            seed=seed,
            device=device,
            data_name=source.name,
            log=report,
            start=start,
            points=points,
        )
    digest = save_checkpoint(model, out)
    say(f"wrote {out} (sha256 {digest[:12]}): {result_in_words(model, test, without)}")


def result_in_words(model: Classifier, test: LabelledImages, without: tuple[int, ...]) -> str:
    """Such as `test accuracy 99.10 %, 0.00 % on the classes left out`."""
    if test.target is not None:
        errors = evaluate_regressor(model, test, without)
        left_out = "" if errors.forget is None else f", {errors.forget.mae:.2f} in the range left out"
        return f"mean absolute error on test images {errors.retain.mae:.2f} {test.target.unit}{left_out}".rstrip()
    result = evaluate_model(model, test, without)
    left_out = "" if result.forget is None else f", {result.forget:.2f} % on the classes left out"
    return f"test accuracy {result.retain:.2f} %{left_out}"


def with_or_without_points(
    data: LabelledImages, put: Path | None, left_out: Path | None, name: str, say: Say
) -> tuple[LabelledImages, dict[str, Any] | None]:
    """The training images with the points of one folder, or without those of another, and what a card says of it."""
    if put and left_out:
        raise UsageError("--with-points and --without-points exclude each other: choose one")
    folder = put or left_out
    if folder is None:
        return data, None
    channels, height, side = data.images.shape[1:]
    points = load_points(folder, (channels, height, side), data.class_names, name, say)
    return put_in(data, points, say) if put else leave_out(data, points, say)


def public_start(path: Path, architecture: str | None) -> PublicStart:
    """The public weights to start from. Raises UsageError if they are of another architecture than the one asked for.

    Args:
        architecture: of the new network, and the code that the file may run.
    """
    start = read_public(path, architecture)
    if architecture not in (None, start.model.card.architecture):
        raise UsageError(
            f"{path} holds {start.model.card.architecture}, not {architecture}: leave out --arch, or name other weights"
        )
    return start


def refuse_seen(
    start: PublicStart, without: tuple[int, ...], data_name: str, like: Path | None, trusted: str | None
) -> None:
    """Raise UsageError if a reference would start from weights that saw the classes that it is to leave out."""
    training = start.model.card.training
    left_out = training.get("without")
    if without and training.get("data") == data_name and not set(without) <= set(left_out or ()):
        raise UsageError(
            f"{start.name} was trained on {data_name} with the classes to leave out, as its own card says: name public "
            "weights that never saw them"
        )
    if without and like:
        teacher = load_checkpoint(like, trusted)
        start.refuse_descendant(teacher.digest or "", teacher)


@contextmanager
def shown_steps(steps: int) -> Iterator[None]:
    """Show how many of the steps of a training are done."""
    progress = Progress(steps, unit="steps")
    try:
        with listening(lambda share, show: progress.advance(0, share * steps)):
            yield
    finally:
        progress.close()


def in_order_of(data: LabelledImages, test: LabelledImages, name: str) -> LabelledImages:
    """The test images with the labels of the training images, by the classes' names. A table or a shard may name other
    classes for each split. Raises UsageError if there is no training image of some class of the test images.
    """
    if data.target is not None or test.class_names == data.class_names:
        return test
    if unknown := [c for c in test.class_names if c not in data.class_names]:
        raise UsageError(
            f"{name} has test images of class '{unknown[0]}', but no training image of it: add some, or remove these"
        )
    return reordered(test, data.class_names, data.class_names)


def check_every_class(images: LabelledImages, split: str, without: tuple[int, ...], name: str) -> None:
    """Raise UsageError if a class that is not left out has no image. A regressor's bins may lack some."""
    if images.target is not None:
        return
    present = set(images.labels.tolist())
    for c, class_name in enumerate(images.class_names):
        if c not in present and c not in without:
            without_it = as_options("--without", [c], images.class_names)
            raise UsageError(
                f"{name} has no {split} image of class '{class_name}': add some, or train without it ({without_it})"
            )


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
    log: Log = lambda epoch, values: None,
    start: PublicStart | None = None,
    points: Mapping[str, Any] | None = None,
) -> Classifier:
    """A classifier, frozen, trained on the images whose class is not in `without`. It has an output for every class all
    the same.

    The settings name the epochs (`epochs_of`). With a start the network takes over weights and normalisation. The last
    layer is new, except if the classes are the same and none is left out.

    Args:
        points: what the card says of single images that were put in or left out.

    Raises:
        UsageError: there are fewer images than one batch, the architecture does not take these images, or the memory
            does not hold a step.
        UserError: the training diverged.
    """
    kept = data.without(without)
    refuse_few(len(kept), settings, without)
    if start:
        mean, std, wiring = start.model.card.mean, start.model.card.std, start.model.card.wiring
    else:
        mean, std = normalisation(kept.images)  # a reference may not see the other images, not even their mean
        wiring = Wiring()
    channels, height, side = data.images.shape[1:]
    card = ModelCard(
        architecture=architecture,
        width=width,
        class_names=data.class_names,
        input_shape=(channels, height, side),
        mean=mean,
        std=std,
        target=None if data.target is None else data.target.standardised,
        training={
            "data": data_name,
            "without": list(without),
            "images": len(kept),
            "seed": seed,
            "settings": dataclasses.asdict(settings),
            **({"start_from": start.facts()} if start else {}),
            **({"points": points} if points else {}),
        },
        wiring=wiring,
    )
    if start:
        new_head = bool(without) or data.class_names != start.model.card.class_names
        model = start.network(card, seed, new_head=new_head)
    else:
        model = Classifier.untrained(card, seed)
    check_forward(model, "choose another --arch, or with a folder of images another --image-size")
    model = model.to(device)
    train_mode(model, settings.freeze_batch_norm)
    with computed(model, settings):
        refuse_large_batch(model, settings.batch_size)
        fit(model, kept, settings, torch.Generator().manual_seed(seed), log)
    return model.freeze()


def refuse_few(images: int, settings: TrainSettings, without: tuple[int, ...]) -> None:
    """Raise UsageError if there are fewer training images than one batch."""
    if images < settings.batch_size:
        fewer = ", or leave out fewer classes" if without else ""
        raise UsageError(
            f"there {'is' if images == 1 else 'are'} only {counted(images, 'training image')}, fewer than one batch of "
            f"{settings.batch_size}: lower --batch-size{fewer}"
        )


def fit(model: Classifier, data: LabelledImages, settings: TrainSettings, rng: torch.Generator, log: Log) -> None:
    """Train the model in place. Only full batches are used, because batch norm needs more than a few images."""
    device = model.mean.device
    flip, shift = augmentation(data, settings)
    images, labels = data.images.to(device), data.labels.to(device)
    assert settings.epochs is not None, "epochs_of decides it"
    batches, epochs = len(data) // settings.batch_size, settings.epochs
    steps = epochs * batches
    optimiser, schedule = ONE_CYCLE[settings.optimiser](model, settings.lr, settings.weight_decay, steps)
    for epoch in range(epochs):
        order = torch.randperm(len(data), generator=rng).to(device)
        total = torch.zeros((), device=device)
        for number, rows in enumerate(order[: batches * settings.batch_size].split(settings.batch_size)):
            x_unit = to_unit(shift_and_flip(images[rows], shift, flip, rng))  # of bytes, which move faster than floats
            loss = F.cross_entropy(model(x_unit), labels[rows])
            descend(loss, optimiser, schedule)
            total += loss.detach()
            tick(epoch * batches + number + 1, steps)
        mean_loss = total.item() / batches
        if math.isnan(mean_loss):
            raise UserError(f"the training diverged in epoch {epoch + 1} (its loss is not a number): lower --lr")
        log(epoch + 1, {"loss": mean_loss})


def epochs_of(data: LabelledImages, settings: TrainSettings) -> int:
    """The passes over the images. The default depends on whether they are photographs in colour."""
    if settings.epochs is not None:
        return settings.epochs
    return PHOTO_EPOCHS if data.natural and data.images.shape[1] == 3 else EPOCHS


def augmentation(data: LabelledImages, settings: TrainSettings) -> tuple[bool, int]:
    """Whether images are mirrored, and their largest shift in pixels. The defaults depend on `data.natural`."""
    flip = data.natural if settings.flip is None else settings.flip
    if settings.shift is not None:
        return flip, settings.shift
    return flip, NATURAL_SHIFT if data.natural else 0
