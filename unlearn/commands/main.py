"""`unlearn ...`: parse, call, print; no logic. torch is loaded by the commands that need it; ray never is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synth.basics.errors import UsageError
from synth.commands.console import ClassList, Console, settings_flags, settings_from_flags
from unlearn.commands.auditing import audit
from unlearn.commands.options import (
    FROM_ENVIRONMENT,
    PATH,
    WIDTH,
    Within,
    code_option,
    data_options,
    device_option,
    overwrite_checkpoint_option,
    seed_option,
    tensorboard_option,
    threads_option,
)
from unlearn.commands.reporting import replay, report, verify
from unlearn.settings import (
    METHOD_PRESETS,
    METHOD_SETTINGS,
    AdaptiveSettings,
    BaselineSettings,
    DistillSettings,
    EMMNSettings,
    GKTSettings,
    ISPFSettings,
    LoopSettings,
    TrainSettings,
    refuse_idle,
)

if TYPE_CHECKING:
    from unlearn.run.carry_out import Request

FOLLOW_TIMEOUT = 3600.0  # seconds


def method_options(command: Any) -> Any:
    """What every method that has the teacher at hand takes, apart from its own settings."""
    for option in reversed(
        (
            click.option("--teacher", type=PATH, default="teacher.safetensors", help="checkpoint to unlearn from"),
            click.option("--shards", help="run of synth generate: for edit to train on, for the monitor to hold out"),
            click.option("--forget", type=ClassList(), required=True, help="classes to forget, such as 0 or 3,8"),
            click.option("--out", type=PATH, required=True, help="folder for the student, its metrics and settings"),
            click.option("--student-arch", help="architecture of the student  [default: the teacher's]"),
            click.option("--student-width", type=WIDTH, help="scales its channels"),
            click.option("--resume", is_flag=True, help="go on from the last check of an interrupted run"),
            click.option("--overwrite", is_flag=True, help="replace an earlier run in --out"),
            tensorboard_option,
            settings_flags(LoopSettings),
            code_option,
            seed_option,
            device_option,
            threads_option,
        )
    ):
        command = option(command)
    return command


def preset_option(method: str) -> Any:
    names = [preset for owner, preset in METHOD_PRESETS if owner == method]
    return click.option("--preset", type=click.Choice(names), help="settings to start from, instead of the defaults")


def run_method(method: str, options: dict[str, Any]) -> None:
    """Run the request that the options spell."""
    request = request_of(method, options)
    from unlearn.run import carry_out as runs

    runs.unlearn(request, click.echo)


def request_of(method: str, options: dict[str, Any]) -> Request:
    """The request that the options of a method's command spell."""
    given = dict(options)
    preset = given.pop("preset", None)
    start = METHOD_PRESETS[method, preset] if preset else METHOD_SETTINGS[method]()
    loop_names = {field.name for field in dataclasses.fields(LoopSettings)}
    own_names = {field.name for field in dataclasses.fields(start)}
    settings = settings_from_flags(start, {n: v for n, v in given.items() if n in own_names}, method)
    refuse_idle(settings, given)
    loop_flags = {n: v for n, v in given.items() if n in loop_names}
    loop = settings_from_flags(LoopSettings(), loop_flags, method)
    others = {n: v for n, v in given.items() if n not in own_names | loop_names}
    if "follow" in others:  # of a method that learns from shards only
        follow, timeout = others.pop("follow"), others["follow_timeout"]
        if timeout is not None and not follow:
            raise UsageError("--follow-timeout has no effect without --follow: add that, or leave it out")
        others["follow_timeout"] = (timeout or FOLLOW_TIMEOUT) if follow else None
    from synth.basics.device import machine
    from unlearn import methods
    from unlearn.run.carry_out import Request

    if not methods.find(method).NEEDS_TEACHER:
        loop = methods.find(method).LOOP
    device = machine(others.pop("device"), others.pop("threads"))
    arch = others.pop("arch", None)
    return Request(method=method, settings=settings, loop=loop, device=device, trusted_architecture=arch, **others)


@click.group(cls=Console, context_settings=FROM_ENVIRONMENT)
@click.version_option(package_name="data-free-unlearning")
def main() -> None:
    """Make a trained classifier forget classes, without its training data, and show what is left of them.

    Every option can also come from the environment: UNLEARN_DATA for --data, and so on (the page of report and the folder
    of replay from UNLEARN_REPORT_OUT and UNLEARN_REPLAY_OUT).
    """


@main.command(context_settings=FROM_ENVIRONMENT)
@click.option(
    "--arch", required=True, help="lenet5, allcnn, resnet20, a torchvision model, or your own module:function"
)
@click.option("--width", type=WIDTH, default=1.0, help="scales the channels of our own architectures")
@data_options()
@click.option(
    "--without",
    type=ClassList(),
    default=(),
    show_default=False,
    help="classes to leave out: makes the retrained reference",
)
@click.option("--out", type=PATH, required=True, help="checkpoint to write")
@overwrite_checkpoint_option
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
    overwrite: bool,
    seed: int,
    device: str,
    threads: int | None,
    **flags: Any,
) -> None:
    """Train a teacher on real images, or the reference that is retrained without some classes."""
    settings = settings_from_flags(TrainSettings(), flags, "train")
    from synth.basics.device import machine
    from synth.checkpoint.file import refuse_existing
    from unlearn.data import DataSource
    from unlearn.train import train as train_and_save

    refuse_existing(out, overwrite)
    train_and_save(
        arch, width, DataSource(data, data_root, download, image_size), without, out, seed,
        machine(device, threads), settings, click.echo,
    )  # fmt: skip


@main.command("import", context_settings=FROM_ENVIRONMENT)
@click.argument("state_dict", type=PATH)
@click.option(
    "--arch", required=True, help="lenet5, allcnn, resnet20, a torchvision model, or your own module:function"
)
@click.option("--width", type=WIDTH, default=1.0)
@click.option("--input-shape", required=True, help="channels,side,side such as 3,32,32")
@click.option("--classes", required=True, help="their number, or their names separated by commas")
@click.option("--mean", required=True, help="per channel, for images in [0, 1], such as 0.49,0.48,0.45")
@click.option("--std", required=True, help="per channel, for images in [0, 1]")
@click.option("--out", type=PATH, required=True, help="checkpoint to write")
@overwrite_checkpoint_option
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
    """Turn a plain PyTorch state dict (.pt, .pth; weights only) into a checkpoint."""
    from synth.checkpoint.file import refuse_existing
    from synth.checkpoint.importing import import_state_dict, parse_card_options

    refuse_existing(out, overwrite)
    card = parse_card_options(arch, width, input_shape, classes, mean, std)
    digest = import_state_dict(state_dict, card, out)
    click.echo(f"wrote {out} ({arch}, {card.num_classes} classes, sha256 {digest[:12]})")


@main.command(context_settings=FROM_ENVIRONMENT)
@click.option("--shards", required=True, help="folder or s3://BUCKET/RUN that synth generate made")
@click.option("--forget", type=ClassList(), required=True, help="classes to forget, such as 0 or 3,8")
@click.option("--out", type=PATH, required=True, help="folder for the student, its metrics and settings")
@click.option("--student-arch", help="architecture of the student  [default: the teacher's]")
@click.option("--student-width", type=WIDTH, help="scales the student's channels")
@click.option("--follow", is_flag=True, help="train while the shards are still being made")
@click.option(
    "--follow-timeout",
    type=Within(min=1),
    help=f"seconds without a new shard before giving up  [default: {FOLLOW_TIMEOUT:g}]",
)
@click.option("--resume", is_flag=True, help="go on from the last check of an interrupted run")
@click.option("--overwrite", is_flag=True, help="replace an earlier run in --out")
@tensorboard_option
@seed_option
@device_option
@threads_option
@settings_flags(DistillSettings)
def distill(**options: Any) -> None:
    """Train a student from scratch on filtered shards. Reads the shards alone: no teacher, no real image."""
    run_method("distill", options)


@main.command(context_settings=FROM_ENVIRONMENT)
@method_options
@settings_flags(BaselineSettings)
def edit(**options: Any) -> None:
    """What a method has to beat: a masked logit, the last layer, fine-tuning, random labels. All but masked-logit need --shards."""
    run_method("edit", options)


@main.command(context_settings=FROM_ENVIRONMENT)
@method_options
@settings_flags(EMMNSettings)
def emmn(**options: Any) -> None:
    """Impair and repair the teacher by error-maximising and error-minimising noise. Needs no shards."""
    run_method("emmn", options)


@main.command(context_settings=FROM_ENVIRONMENT)
@method_options
@preset_option("gkt")
@settings_flags(GKTSettings)
def gkt(**options: Any) -> None:
    """Gated knowledge transfer: a generator and a student from scratch. Shards are for the monitor alone."""
    run_method("gkt", options)


@main.command(context_settings=FROM_ENVIRONMENT)
@method_options
@settings_flags(ISPFSettings)
def ispf(**options: Any) -> None:
    """Inhibited synthesis and post-filter: as gkt, but no image is thrown away. Shards are for the monitor alone."""
    run_method("ispf", options)


@main.command(context_settings=FROM_ENVIRONMENT)
@method_options
@settings_flags(AdaptiveSettings)
def adaptive(**options: Any) -> None:
    """Rounds of synthesis and distillation, the student's disagreement steering the images. Needs no shards."""
    run_method("adaptive", options)


@main.command(context_settings=FROM_ENVIRONMENT)
@click.argument("model", type=PATH)
@data_options()
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
    from synth.basics.device import machine
    from unlearn.data import DataSource
    from unlearn.evaluate import evaluate as evaluate_checkpoints
    from unlearn.tables import evaluation_json, evaluation_tables

    named = {"original": teacher, "unlearned": model, "retrained": reference}
    evaluations, class_names = evaluate_checkpoints(
        {name: path for name, path in named.items() if path is not None},
        DataSource(data, data_root, download, image_size), forget, arch, machine(device, threads),
    )  # fmt: skip
    show = evaluation_json if as_json else evaluation_tables
    click.echo(show(evaluations, class_names, forget))


@main.command(context_settings={**FROM_ENVIRONMENT, "ignore_unknown_options": True})
@click.option("--method", type=click.Choice(sorted(METHOD_SETTINGS)), required=True)
@click.option(
    "--over", required=True, help="a setting and its values: entropy=0.2:2.0:10 (first:last:count) or gate=0.01,0.1"
)
@click.option("--seeds", type=ClassList(), default="0", help="such as 0-2")
@click.option("--forget", type=ClassList(), required=True, help="classes to forget, such as 0 or 3,8")
@click.option("--out", type=PATH, required=True, help="folder for the runs, sweep.csv and sweep.svg")
@data_options()
@device_option
@threads_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def sweep(
    method: str,
    over: str,
    seeds: tuple[int, ...],
    forget: tuple[int, ...],
    out: Path,
    data: str,
    data_root: Path | None,
    download: bool,
    image_size: int,
    device: str,
    threads: int | None,
    options: tuple[str, ...],
) -> None:
    """Run METHOD with every value and seed, and show both accuracies over the setting.

    OPTIONS are the method's own, such as --teacher and --shards. Started again, it goes on where it was. The accuracies
    are on real test images: they show what a setting does, and must not be what it is chosen by. Each student's
    provenance.json tells that it was judged on them.
    """
    from synth.basics.device import machine
    from unlearn.data import DataSource
    from unlearn.run import sweep as sweeping

    swept = (DistillSettings,) if method == "distill" else (METHOD_SETTINGS[method], LoopSettings)
    chosen = sweeping.Range.parse(over).check(method, *swept)
    command = main.commands[method]
    classes = ",".join(map(str, forget))
    given = [*options, "--forget", classes, "--out", str(out), "--device", machine(device, threads)]
    given += ["--threads", str(threads)] if threads else []
    flags = command.make_context(command.name, given, auto_envvar_prefix="UNLEARN").params
    if flags["tensorboard"] is not None:
        raise UsageError("a sweep has no --tensorboard: its runs would lie on top of each other; see its sweep.csv")
    request = request_of(method, flags)
    refuse_idle(request.settings, {chosen.name.replace("-", "_"): chosen.values[0]})
    trusted = ",".join(filter(None, (request.trusted_architecture, request.student_arch)))
    source = DataSource(data, data_root, download, image_size)
    images = source.load("test")  # before any run

    def judge(student: Path) -> tuple[float, float | None]:
        return sweeping.judge_on_test_images(student, source, images, forget, trusted, request.device)

    sweeping.sweep(chosen, seeds, request, out, judge, click.echo)
    click.echo(f"wrote {out / sweeping.RESULTS} and {out / sweeping.PLOT}")


for command in (audit, report, verify, replay):
    main.add_command(command)
