"""`unlearn train`, `import` and `evaluate`: parse, call, print; no logic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from synth.basics.declared import declared
from synth.commands.config import config_option
from synth.commands.console import ClassList
from synth.commands.options import Command, option, settings_flags, settings_from_flags
from synth.commands.printing import echo, say
from unlearn.commands.options import (
    ARCHITECTURES,
    FROM_ENVIRONMENT,
    PATH,
    WHAT,
    WIDTH,
    checkpoint_options,
    code_option,
    data_options,
    device_option,
    forget_option,
    log_to_option,
    seed_option,
    threads_option,
)

TRAIN_SETTINGS = declared("unlearn.train").TrainSettings


@contextmanager
def checkpoint_to_write(out: Path, overwrite: bool, command: str) -> Iterator[None]:
    """Hold the lock of the checkpoint --out. Raises UserError if it may not be written, or if another process does."""
    from synth.basics.way_on import START_AGAIN, WayOn
    from synth.checkpoint.file import refuse_existing
    from synth.run.lock import locked_file

    refuse_existing(out, overwrite)
    with locked_file(out, WayOn(command=command, again=START_AGAIN), lambda line: click.echo(line, err=True)):
        refuse_existing(out, overwrite)  # another process may have written it meanwhile
        yield


@click.command(cls=Command, context_settings=FROM_ENVIRONMENT)
@option("--arch", group=WHAT, required=True, help=ARCHITECTURES)
@option("--width", group=WHAT, type=WIDTH, default=1.0, help="scales the channels of our own architectures")
@option(
    "--without",
    group=WHAT,
    type=ClassList(),
    default=(),
    show_default=False,
    help="numbers of classes to leave out, which makes the retrained reference",
)
@seed_option
@data_options()
@checkpoint_options
@log_to_option
@config_option("a JSON file of options by name")
@settings_flags({"train": TRAIN_SETTINGS}, {"train": "Settings"})
@device_option
@threads_option
def train(
    arch: str,
    width: float,
    data: str,
    data_root: Path | None,
    download: bool,
    image_size: int,
    without: tuple[int, ...],
    out: Path,
    overwrite: bool,
    log_to: tuple[Any, ...],
    seed: int,
    device: str,
    threads: int | None,
    **flags: Any,
) -> None:
    """Train a teacher on real images. With --without it is the reference, which never saw some classes."""
    settings_from_flags(TRAIN_SETTINGS(), flags, "train")  # refuses a wrong setting before torch is loaded
    from synth.basics.device import machine
    from unlearn.data import DataSource
    from unlearn.run import loggers
    from unlearn.run.loggers.logged_run import LoggedRun
    from unlearn.train import TrainSettings
    from unlearn.train import train as train_and_save

    settings = settings_from_flags(TrainSettings(), flags, "train")
    facts = {"arch": arch, "width": width, "data": data, "without": without, "seed": seed, **asdict(settings)}
    logged = LoggedRun(place=out, settings=facts, replaces=overwrite, say=say)
    with checkpoint_to_write(out, overwrite, "unlearn train"):
        loggers.check(log_to, logged)
        train_and_save(
            arch,
            width,
            DataSource(data, data_root, download, image_size),
            without,
            out,
            seed,
            machine(device, threads),
            settings,
            say,
            loggers.opened(log_to, logged),
        )


@click.command("import", cls=Command, context_settings=FROM_ENVIRONMENT)
@click.argument("state_dict", type=PATH)
@option("--arch", group=WHAT, required=True, help=ARCHITECTURES)
@option("--width", group=WHAT, type=WIDTH, default=1.0, help="scales the channels of our own architectures")
@option("--input-shape", group=WHAT, required=True, help="channels,side,side such as 3,32,32")
@option("--classes", group=WHAT, required=True, help="the number of classes, or their names separated by commas")
@option("--mean", group=WHAT, required=True, help="per channel, for images in [0, 1], such as 0.49,0.48,0.45")
@option("--std", group=WHAT, required=True, help="per channel, for images in [0, 1]")
@checkpoint_options
def import_(
    state_dict: Path,
    arch: str,
    width: float,
    input_shape: str,
    classes: str,
    mean: str,
    std: str,
    out: Path,
    overwrite: bool,
) -> None:
    """Turn a PyTorch state dict into a checkpoint. Only weights are read from the .pt or .pth file."""
    from synth.checkpoint.importing import import_state_dict, parse_card_options

    with checkpoint_to_write(out, overwrite, "unlearn import"):
        card = parse_card_options(arch, width, input_shape, classes, mean, std)
        digest = import_state_dict(state_dict, card, out)
    say(f"wrote {out} ({arch}, {card.num_classes} classes, sha256 {digest[:12]})")


@click.command(cls=Command, context_settings=FROM_ENVIRONMENT)
@click.argument("model", type=PATH)
@forget_option
@option("--teacher", group=WHAT, type=PATH, help="the original model, for comparison")
@option("--reference", group=WHAT, type=PATH, help="the model retrained without the classes, for comparison")
@option("--json", "as_json", group=WHAT, is_flag=True, help="print JSON instead of tables")
@code_option
@data_options()
@device_option
@threads_option
def evaluate(
    model: Path,
    data: str,
    data_root: Path | None,
    download: bool,
    image_size: int,
    forget: tuple[int, ...],
    teacher: Path | None,
    reference: Path | None,
    as_json: bool,
    arch: str | None,
    device: str,
    threads: int | None,
) -> None:
    """Show MODEL's accuracy on real test images. MODEL is a checkpoint or a run folder.

    Tables give retain and forget accuracy, the accuracy per class, and the confusion matrix.
    """
    from synth.basics.device import machine
    from unlearn.data import DataSource
    from unlearn.evaluate import evaluate as evaluate_checkpoints
    from unlearn.evaluation_text import evaluation_json, evaluation_tables
    from unlearn.run.folder import student_file

    named = {"original": teacher, "unlearned": student_file(model), "retrained": reference}
    evaluations, class_names = evaluate_checkpoints(
        {name: path for name, path in named.items() if path is not None},
        DataSource(data, data_root, download, image_size),
        forget,
        arch,
        machine(device, threads),
    )
    show = evaluation_json if as_json else evaluation_tables
    echo(show(evaluations, class_names, forget))
