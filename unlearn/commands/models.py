"""`unlearn train`, `import` and `evaluate`: parse, call, print; no logic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from synth.basics.declared import declared
from synth.basics.errors import UsageError
from synth.basics.progress import Say
from synth.checkpoint.target_options import TargetOptions, with_target
from synth.commands.config import config_option
from synth.commands.console import ClassText
from synth.commands.options import Command, option, settings_flags, settings_from_flags
from synth.commands.printing import echo, note, say
from unlearn.commands.options import (
    ARCHITECTURES,
    FROM_ENVIRONMENT,
    PATH,
    WHAT,
    WHERE,
    WIDTH,
    checkpoint_options,
    code_option,
    data_options,
    device_option,
    forget_option,
    log_to_option,
    seed_option,
    start_option,
    target_options,
    threads_option,
)

TRAIN_SETTINGS = declared("unlearn.training").TrainSettings


@contextmanager
def checkpoint_to_write(out: Path, overwrite: bool, command: str) -> Iterator[None]:
    """Hold the lock of the checkpoint --out. Raises UserError if it may not be written, or if another process does."""
    from synth.basics.way_on import START_AGAIN, WayOn
    from synth.checkpoint.file import refuse_existing
    from synth.run.lock import locked_file

    refuse_existing(out, overwrite)
    with locked_file(out, WayOn(command=command, again=START_AGAIN), note):
        refuse_existing(out, overwrite)  # another process may have written it meanwhile
        yield


@click.command(cls=Command, context_settings=FROM_ENVIRONMENT)
@option("--arch", group=WHAT, help=ARCHITECTURES)
@option("--width", group=WHAT, type=WIDTH, default=1.0, help="scales the channels of our own architectures")
@start_option
@option(
    *("--without", "--without-range", "without"),
    group=WHAT,
    type=ClassText(),
    multiple=True,
    help="classes to leave out, by name or number, or a regressor's range, such as 60:90, which makes the retrained "
    "reference; may be repeated",
)
@target_options
@option(
    "--without-points",
    group=WHAT,
    type=PATH,
    help="folder of single training images to leave out, which makes the retrained reference for them",
)
@option(
    "--with-points",
    group=WHAT,
    type=PATH,
    rare=True,
    help="folder of single images to train on with its labels, right or wrong: a case for tests of forgetting",
)
@option(
    "--like",
    group=WHAT,
    type=PATH,
    help="checkpoint whose image shape and order of classes to take, such as the one that the reference is for",
)
@seed_option
@data_options()
@checkpoint_options
@log_to_option
@config_option("a JSON file of options by name")
@settings_flags({"train": TRAIN_SETTINGS}, {"train": "Settings"})
@device_option
@threads_option
def train(**options: Any) -> None:
    """Train a teacher on real images. With --without it is the reference, which never saw some classes.

    A regressor is --task regression. It learns the data's targets by their likelihood. A folder or CSV file of images
    then needs a table of targets (docs/ranges.md), and --target-name and --target-range.
    The weights are random at first, or with --start-from those of a checkpoint, such as one that 'unlearn import' made
    of public weights.
    """
    train_model(say, note, **options)


@with_target
def train_model(
    tell: Say,
    remark: Say,
    arch: str | None,
    width: float,
    start_from: Path | None,
    data: str,
    data_root: Path | None,
    download: bool,
    image_size: int | None,
    without: tuple[int | str, ...],
    without_points: Path | None,
    with_points: Path | None,
    of_target: TargetOptions,
    like: Path | None,
    out: Path,
    overwrite: bool,
    log_to: tuple[Any, ...],
    seed: int,
    device: str,
    threads: int | None,
    **flags: Any,
) -> None:
    """`unlearn train` with these options. `tell` gets its results, and `remark` lines that are no results."""
    settings_from_flags(TRAIN_SETTINGS(), flags, "train")  # refuses a wrong setting before torch is loaded
    if arch is None and start_from is None:
        raise UsageError("--arch is missing: name the network to train, or weights to start from with --start-from")
    if start_from is not None and width != 1.0:
        raise UsageError("--width has no effect with --start-from, whose network has a width: leave it out")
    from synth.basics.device import machine
    from unlearn.data import DataSource, target_of
    from unlearn.run import loggers
    from unlearn.run.loggers.logged_run import LoggedRun
    from unlearn.training import FINE_TUNING, TrainSettings
    from unlearn.training import train as train_and_save

    settings = settings_from_flags(FINE_TUNING if start_from else TrainSettings(), flags, "train")
    facts = {"arch": arch, "width": width, "data": data, "without": without, "seed": seed, **asdict(settings)}
    points = {"with_points": with_points, "without_points": without_points}
    facts |= {name: str(folder) for name, folder in points.items() if folder}
    if start_from is not None:
        facts["start_from"] = str(start_from)
    logged = LoggedRun(place=out, settings=facts, replaces=overwrite, say=tell)
    with checkpoint_to_write(out, overwrite, "unlearn train"):
        loggers.check(log_to, logged)
        train_and_save(
            arch,
            width,
            DataSource(data, data_root, download, image_size, remark, target_of(data, of_target, like)),
            without,
            out,
            seed,
            machine(device, threads),
            settings,
            tell,
            loggers.opened(log_to, logged),
            like,
            start_from=start_from,
            **points,
        )


@click.command("import", cls=Command, context_settings=FROM_ENVIRONMENT)
@click.argument("file", type=PATH, required=False)
@option("--weights", group=WHAT, help="published weights: torchvision:NAME, timm:NAME or transformers:FOLDER")
@option("--arch", group=WHAT, help=ARCHITECTURES)
@option("--width", group=WHAT, type=WIDTH, default=1.0, help="scales the channels of our own architectures")
@option("--input-shape", group=WHAT, help="channels,height,width such as 3,224,224")
@option("--classes", group=WHAT, help="the number of classes, or their names separated by commas")
@option("--classes-file", group=WHAT, type=PATH, help="names of the classes: one per line, or a JSON list or object")
@option("--mean", group=WHAT, help="one per channel, or one for all, for images in [0, 1], such as 0.49,0.48,0.45")
@option("--std", group=WHAT, help="one per channel, or one for all, for images in [0, 1]")
@option("--entry", group=WHAT, help="the state dict to take if FILE has several, such as ema  [default: the usual one]")
@option("--prefix", group=WHAT, rare=True, help="the prefix of the keys to take if several networks are in one entry")
@target_options
@checkpoint_options
def import_(**options: Any) -> None:
    """Turn a trained network into a checkpoint: a FILE of weights, or published weights.

    FILE is a .pt, .pth or .safetensors file. Only weights are read from it, and no code in it runs. What stands around
    the weights is found by itself: entries such as state_dict or model, and prefixes of Lightning, DataParallel and
    torch.compile.

    Your own network is --arch module:function, for a file module.py in this folder or on PYTHONPATH. The function may
    take (num_classes), (classes), (n_classes), (in_channels, num_classes) or nothing, and other parameters with
    defaults; a class works, too. If it loads its weights itself, leave out FILE.

    A regressor is --task regression with --target-name, --target-range and --head, in place of --classes.

    \b
    unlearn import model.pt --arch resnet50 --input-shape 3,224,224 --classes-file names.txt \\
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --out teacher.safetensors
    unlearn import --weights torchvision:resnet50 --out teacher.safetensors
    """
    import_model(say, **options)


@with_target
def import_model(
    tell: Say,
    file: Path | None,
    weights: str | None,
    arch: str | None,
    width: float,
    input_shape: str | None,
    classes: str | None,
    classes_file: Path | None,
    mean: str | None,
    std: str | None,
    entry: str | None,
    prefix: str | None,
    of_target: TargetOptions,
    out: Path,
    overwrite: bool,
) -> None:
    """`unlearn import` with these options. `tell` gets lines for a person."""
    if classes is not None and classes_file is not None:
        raise click.UsageError("--classes and --classes-file exclude each other: give one of them")
    target = of_target.target()
    if target is not None and (classes or classes_file):
        raise UsageError("a regressor has no classes: leave out --classes, or --task regression")
    from synth.checkpoint.importing.card_options import facts_from_options
    from synth.checkpoint.importing.class_names import names_from_file, names_from_option
    from synth.checkpoint.importing.import_checkpoint import ImportRequest, import_checkpoint

    with checkpoint_to_write(out, overwrite, "unlearn import"):
        names = names_from_option(classes) if classes is not None else None
        if classes_file is not None:
            names = names_from_file(classes_file)
        if target is not None:
            names = target.bin_names
        request = ImportRequest(
            file=file,
            weights=weights,
            architecture=arch,
            width=width,
            facts=replace(facts_from_options(input_shape, names, mean, std), target=target),
            entry=entry,
            prefix=prefix,
        )
        model = import_checkpoint(request, out, tell)
    tell(
        f"wrote {out} ({model.card.architecture}, {model.card.num_classes} "
        f"{'classes' if target is None else f'bins of {target.words}'}, sha256 {(model.digest or '')[:12]})"
    )


@click.command(cls=Command, context_settings=FROM_ENVIRONMENT)
@click.argument("model", type=PATH)
@forget_option
@option("--teacher", group=WHAT, type=PATH, help="the original model, for comparison")
@option("--reference", group=WHAT, type=PATH, help="the model retrained without the classes, for comparison")
@option("--json", "as_json", group=WHAT, is_flag=True, help="print everything as JSON instead of a page")
@option(
    "--out",
    group=WHERE,
    type=PATH,
    envvar="UNLEARN_EVALUATE_OUT",
    allow_from_autoenv=False,  # UNLEARN_OUT is a run's place, or a checkpoint's
    show_envvar=True,
    help="also write everything to this file, FILE.json or FILE.csv",
)
@code_option
@data_options()
@device_option
@threads_option
def evaluate(as_json: bool, out: Path | None, **options: Any) -> None:
    """Show MODEL's accuracy on real test images, or a regressor's errors. MODEL is a checkpoint or a run folder.

    A page gives retain and forget accuracy. With up to 20 classes it also gives the accuracy per class and the
    confusion matrix, with more classes the worst classes and the most confused pairs.
    """
    if out is not None and out.suffix not in (".json", ".csv"):
        raise UsageError(f"--out {out} must end in .json or .csv")
    from synth.basics.disk import prepare_output, write_file

    if out is not None:
        begins = b"model," if out.suffix == ".csv" else b'{"forget":'
        prepare_output(out, begins, "written by 'unlearn evaluate'")
    found, name = evaluations_of(note, **options)
    from unlearn.evaluation_text import evaluation_csv, evaluation_json, evaluation_page

    echo(evaluation_json(*found) if as_json else evaluation_page(*found, name))
    if out is not None:
        write_file(out, (evaluation_csv if out.suffix == ".csv" else evaluation_json)(*found).encode())
        note(f"wrote {out}")


def evaluations_of(
    tell: Say,
    model: Path,
    data: str,
    data_root: Path | None,
    download: bool,
    image_size: int | None,
    forget: tuple[int | str, ...],
    teacher: Path | None,
    reference: Path | None,
    arch: str | None,
    device: str,
    threads: int | None,
) -> tuple[tuple[Any, Any, Any], str]:
    """What `unlearn.evaluation.evaluate` returns, and the name of MODEL in it. `tell` gets lines for a person."""
    from synth.basics.device import machine
    from synth.checkpoint.file import student_file
    from unlearn.data import DataSource
    from unlearn.evaluation import evaluate as evaluate_checkpoints
    from unlearn.evaluation import named_checkpoints

    source = DataSource(data, data_root, download, image_size, tell)
    model = student_file(model)
    named = named_checkpoints(model, teacher, reference)
    found = evaluate_checkpoints(named, source, forget, arch, machine(device, threads))
    return found, next(name for name, path in named.items() if path is model)
