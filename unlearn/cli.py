"""`unlearn ...`: parse, call, print; no logic. torch is loaded by the commands that need it; ray never is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from synth.console import ClassList, Console, settings_flags, settings_from_flags
from unlearn.settings import DistillSettings, TrainSettings

FROM_ENVIRONMENT = {"auto_envvar_prefix": "UNLEARN", "show_default": True, "max_content_width": 110}
PATH = click.Path(path_type=Path)

device_option = click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto")
threads_option = click.option("--threads", type=click.IntRange(min=1), help="CPU threads  [default: all cores]")
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0)
code_option = click.option("--arch", help="module:function of a checkpoint's architecture, if it is your own code")


def data_options(command: Any) -> Any:
    """Where real images come from."""
    for option in (
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
            required=True,
            help="digits, mnist, fashion-mnist, cifar10, or a folder with train/ and test/",
        ),
    ):
        command = option(command)
    return command


@click.group(cls=Console, context_settings=FROM_ENVIRONMENT)
@click.version_option(package_name="data-free-unlearning")
def main() -> None:
    """Make a trained classifier forget classes, without its training data, and show what is left of them.

    Every option can also come from the environment: UNLEARN_DATA for --data, and so on.
    """


@main.command(context_settings=FROM_ENVIRONMENT)
@click.option(
    "--arch", required=True, help="lenet5, allcnn, resnet20, a torchvision model, or your own module:function"
)
@click.option(
    "--width",
    type=click.FloatRange(0, 16, min_open=True),
    default=1.0,
    help="scales the channels of our own architectures",
)
@data_options
@click.option(
    "--without",
    type=ClassList(),
    default=(),
    show_default=False,
    help="classes to leave out: makes the retrained reference",
)
@click.option("--out", type=PATH, required=True, help="checkpoint to write")
@seed_option
@device_option
@threads_option
@settings_flags(TrainSettings)
def train(
    arch: str,
    width: float,
    data: str,
    data_root: Path | None,
    download: bool,
    image_size: int,
    without: tuple[int, ...],
    out: Path,
    seed: int,
    device: str,
    threads: int | None,
    **flags: Any,
) -> None:
    """Train a teacher on real images, or the reference that is retrained without some classes."""
    settings = settings_from_flags(TrainSettings(), flags, "train")
    from unlearn import tasks

    tasks.train(
        arch, width, tasks.DataSource(data, data_root, download, image_size), without, out, seed,
        tasks.machine(device, threads), settings, click.echo,
    )  # fmt: skip


@main.command("import", context_settings=FROM_ENVIRONMENT)
@click.argument("state_dict", type=PATH)
@click.option(
    "--arch", required=True, help="lenet5, allcnn, resnet20, a torchvision model, or your own module:function"
)
@click.option("--width", type=click.FloatRange(0, 16, min_open=True), default=1.0)
@click.option("--input-shape", required=True, help="channels,side,side such as 3,32,32")
@click.option("--classes", required=True, help="their number, or their names separated by commas")
@click.option("--mean", required=True, help="per channel, for images in [0, 1], such as 0.49,0.48,0.45")
@click.option("--std", required=True, help="per channel, for images in [0, 1]")
@click.option("--out", type=PATH, required=True, help="checkpoint to write")
def import_(
    state_dict: Path, arch: str, width: float, input_shape: str, classes: str, mean: str, std: str, out: Path
) -> None:
    """Turn a plain PyTorch state dict (.pt, .pth; weights only) into a checkpoint."""
    from unlearn.importing import import_state_dict, parse_card_options

    card = parse_card_options(arch, width, input_shape, classes, mean, std)
    digest = import_state_dict(state_dict, card, out)
    click.echo(f"wrote {out} ({arch}, {card.num_classes} classes, sha256 {digest[:12]})")


@main.command(context_settings=FROM_ENVIRONMENT)
@click.option("--shards", required=True, help="folder or s3://BUCKET/RUN that synth generate made")
@click.option("--forget", type=ClassList(), required=True, help="classes to forget, such as 0 or 3,8")
@click.option("--out", type=PATH, required=True, help="folder for the student, its metrics and settings")
@click.option("--student-arch", help="architecture of the student  [default: the teacher's]")
@click.option("--student-width", type=click.FloatRange(0, 16, min_open=True), help="scales the student's channels")
@click.option("--follow", is_flag=True, help="train while the shards are still being made")
@click.option(
    "--follow-timeout",
    type=click.FloatRange(min=1),
    default=3600.0,
    help="seconds without a new shard before giving up",
)
@click.option("--overwrite", is_flag=True, help="replace an earlier student in --out")
@seed_option
@device_option
@threads_option
@settings_flags(DistillSettings)
def distill(
    shards: str,
    forget: tuple[int, ...],
    out: Path,
    student_arch: str | None,
    student_width: float | None,
    follow: bool,
    follow_timeout: float,
    overwrite: bool,
    seed: int,
    device: str,
    threads: int | None,
    **flags: Any,
) -> None:
    """Train a student from scratch on filtered shards. Reads the shards alone: no teacher, no real image."""
    settings = settings_from_flags(DistillSettings(), flags, "distill")
    from unlearn import tasks

    tasks.distill(
        shards, forget, settings, out, student_arch, student_width,
        follow_timeout if follow else None, overwrite, seed, tasks.machine(device, threads), click.echo,
    )  # fmt: skip


@main.command(context_settings=FROM_ENVIRONMENT)
@click.argument("model", type=PATH)
@data_options
@click.option("--forget", type=ClassList(), required=True, help="classes that were to be forgotten")
@click.option("--teacher", type=PATH, help="the original model, for comparison")
@click.option("--reference", type=PATH, help="the model retrained without the classes, for comparison")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of tables")
@code_option
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
    """Accuracy on real test images: retain and forget, per class, and the confusion matrix."""
    from unlearn import tasks
    from unlearn.tables import evaluation_json, evaluation_tables

    named = {"original": teacher, "unlearned": model, "retrained": reference}
    evaluations, class_names = tasks.evaluate(
        {name: path for name, path in named.items() if path is not None},
        tasks.DataSource(data, data_root, download, image_size), forget, arch, tasks.machine(device, threads),
    )  # fmt: skip
    show = evaluation_json if as_json else evaluation_tables
    click.echo(show(evaluations, class_names, forget))
