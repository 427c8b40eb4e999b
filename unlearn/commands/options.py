"""Command-line options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

FROM_ENVIRONMENT = {"auto_envvar_prefix": "UNLEARN", "show_default": True, "max_content_width": 110}
PATH = click.Path(path_type=Path)


class Within(click.FloatRange):
    """A range of numbers. NaN, which every comparison lets pass, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"'{value}' is not a number.", param, ctx)
        return number


WIDTH = Within(0, 16, min_open=True)

device_option = click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto")
threads_option = click.option("--threads", type=click.IntRange(min=1), help="CPU threads  [default: all cores]")
# The bound leaves the lower half of torch's 64 bits to an audit, which numbers its experiments there.
seed_option = click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0)
code_option = click.option(
    "--arch", help="module:function of a checkpoint's architecture, if it is your own code; several as a:f,b:g"
)


def tensorboard_folder(context: click.Context, option: click.Parameter, value: Path | None) -> Path | None:
    if value is not None:
        from unlearn.run.tensorboard import check

        check(value)
    return value


overwrite_checkpoint_option = click.option("--overwrite", is_flag=True, help="replace the checkpoint --out")
tensorboard_option = click.option(
    "--tensorboard", type=PATH, callback=tensorboard_folder, help="folder for the metrics as TensorBoard events as well"
)


def data_options(required: bool = True) -> Callable[[Any], Any]:
    """Where real images come from."""
    options = (
        click.option(
            "--image-size",
            type=click.IntRange(8, 1024),
            default=32,
            help="side of a folder's images, in pixels",
        ),
        click.option("--download", is_flag=True, help="fetch the data set if it isn't there"),
        click.option("--data-root", type=PATH, help="folder that holds the data set  [default: data]"),
        click.option(
            "--data",
            required=required,
            help="digits, mnist, fashion-mnist, cifar10, or a folder with train/ and test/",
        ),
    )

    def decorate(command: Any) -> Any:
        for option in options:
            command = option(command)
        return command

    return decorate
