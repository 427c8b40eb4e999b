"""Options that several commands of `unlearn` share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from synth.checkpoint.architectures import names
from synth.checkpoint.target import DEFAULT_BINS, HEADS, MOST_BINS
from synth.commands.console import ClassText
from synth.commands.options import MACHINE, Decorator, option, stacked
from unlearn import data_sets
from unlearn.settings import LARGEST_SEED

FROM_ENVIRONMENT = {"auto_envvar_prefix": "UNLEARN", "show_default": True, "max_content_width": 110}
PATH = click.Path(path_type=Path)
WHAT, WHERE, DATA = "What to do", "Where", "Real images"
ARCHITECTURES = f"{', '.join(names())}, a torchvision model, timm:NAME, or your own module:function"


class Within(click.FloatRange):
    """A range of numbers. It refuses NaN, which passes every comparison."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"'{value}' is not a number.", param, ctx)
        return number


WIDTH = Within(0, 16, min_open=True)


def forget_option_that(required: bool) -> Decorator:
    return option(
        *("--forget", "--forget-range", "forget"),
        group=WHAT,
        type=ClassText(),
        multiple=True,
        required=required,
        help="classes to forget, by name or number, such as cat or 3,8; of a regressor a range, such as 60:90; may be "
        "repeated",
    )


forget_option = forget_option_that(required=True)
forget_or_points_option = forget_option_that(required=False)
target_options = stacked(
    option(
        "--task",
        group=WHAT,
        type=click.Choice(["classification", "regression"]),
        default="classification",
        help="what the network predicts: a class, or a number (docs/ranges.md)",
    ),
    option("--target-name", group=WHAT, rare=True, help="what a regressor predicts, such as age"),
    option("--target-unit", group=WHAT, rare=True, help="its unit, such as years"),
    option("--target-range", group=WHAT, rare=True, help="its smallest and largest value, such as 0:100"),
    option(
        "--bins",
        group=WHAT,
        rare=True,
        type=click.IntRange(2, MOST_BINS),
        help=f"equal intervals that the range is cut into  [default: {DEFAULT_BINS}]",
    ),
    option(
        "--head",
        group=WHAT,
        type=click.Choice(HEADS),
        help="what a regressor's network returns: a logit per bin, (mean, log variance), or one number  "
        "[default: bins]",
    ),
    option(
        "--spread",
        group=WHAT,
        rare=True,
        type=Within(min=0, min_open=True),
        help="the fixed standard deviation of a network that returns one number, in the target's unit",
    ),
)
device_option = option(
    "--device",
    group=MACHINE,
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    help="device that the networks run on",
)
threads_option = option(
    "--threads", group=MACHINE, type=click.IntRange(min=1), help="CPU threads  [default: all cores]"
)
seed_option = option("--seed", group=WHAT, type=click.IntRange(0, LARGEST_SEED), default=0, help="random seed")
code_option = option(
    "--arch",
    group=WHAT,
    help="module:function of a checkpoint's architecture, if it is your own code; several as a:f,b:g",
)
start_option = option(
    "--start-from",
    group=WHAT,
    type=PATH,
    metavar="PUBLIC",
    help="checkpoint of public weights to start from instead of random ones; the last layer is new",
)
checkpoint_options = stacked(
    option("--out", group=WHERE, type=PATH, required=True, help="checkpoint to write"),
    option("--overwrite", group=WHERE, is_flag=True, help="replace the checkpoint in --out"),
)


def destinations(context: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Any, ...]:
    """The `unlearn.run.loggers.Destination` of each value, once."""
    if not values:
        return ()
    from unlearn.run.loggers import parse

    return tuple(dict.fromkeys(map(parse, values)))


log_to_option = option(
    "--log-to",
    group=WHERE,
    metavar="LOGGER",
    multiple=True,
    callback=destinations,
    show_default=False,
    help="write the metrics also to csv[:FILE], tensorboard:FOLDER, wandb:PROJECT or mlflow:URI; can be given again",
)


def data_options(required: bool = True) -> Decorator:
    """Where real images come from."""
    return stacked(
        option(
            "--data",
            group=DATA,
            required=required,
            help=f"{', '.join(data_sets.names())}, or a folder with train/ and test/, a CSV file, or shards",
        ),
        option("--data-root", group=DATA, type=PATH, help="folder that holds the data set  [default: data]"),
        option("--download", group=DATA, is_flag=True, help="download the data set if it is not there"),
        option(
            "--image-size",
            group=DATA,
            type=click.IntRange(8, 1024),
            help="side in pixels that a folder's images are resized to  [default: the checkpoint's; without one 32]",
        ),
    )
