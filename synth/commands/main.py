"""`synth ...`: parse, call, print; no logic. torch and ray are loaded by the commands that need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from synth.basics.errors import UsageError
from synth.commands.console import ClassList, Console, settings_flags, settings_from_flags
from synth.methods.settings import SYNTHESIS_PRESETS, SYNTHESIS_SETTINGS, QualityGate

FROM_ENVIRONMENT = {"auto_envvar_prefix": "SYNTH", "show_default": True, "max_content_width": 110}


@click.group(cls=Console, context_settings=FROM_ENVIRONMENT)
@click.version_option(package_name="data-free-unlearning")
def main() -> None:
    """Make training images from a checkpoint alone, as WebDataset shards.

    Every option can also come from the environment: SYNTH_TEACHER for --teacher, and so on (the preview's --out from
    SYNTH_PREVIEW_OUT).
    """


@main.command(context_settings=FROM_ENVIRONMENT)
@click.option("--teacher", type=click.Path(path_type=Path), default="teacher.safetensors", help="the checkpoint")
@click.option("--arch", help="module:function of the checkpoint's architecture, if it is your own code")
@click.option("--per-class", type=int, required=True, help="images for each class")
@click.option("--classes", type=ClassList(), help="such as 1-9 or 3,8  [default: all]")
@click.option("--out", default="shards", help="folder or s3://BUCKET/RUN to publish in")
@click.option("--method", type=click.Choice(list(SYNTHESIS_SETTINGS)), default="deepinversion")
@click.option(
    "--preset",
    type=click.Choice(["tuned", "lean", "quick", "warm", "published"]),
    default="tuned",
    help="settings to start from: ours; ours with 10 or 5 larger steps; 10 steps from a generator's images on; the paper's",
)
@click.option("--shard-size", type=int, default=1000, help="images a shard at most")
@click.option(
    "--blends", type=int, default=9, help="samples that blend each image with another, labelled by the teacher"
)
@click.option(
    "--generator",
    type=click.Path(path_type=Path),
    help="a trained generator (another run's generator.safetensors), instead of training one",
)
@click.option(
    "--student", type=click.Path(path_type=Path), help="checkpoint to train a generator against, for what it lacks"
)
@click.option(
    "--quality-gate",
    help="make images again that miss these bounds, such as confidence=0.9,entropy=0.5,agreement=0.8,tries=3",
)
@click.option("--seed", type=int, default=0)
@click.option("--resume", is_flag=True, help="make only what the run still lacks")
@click.option("--overwrite", is_flag=True, help="replace the run that is there")
@click.option(
    "--address",
    default="auto",
    help="auto (RAY_ADDRESS, a Ray running here, or one of its own), local, HOST:PORT, ray://HOST:PORT, or none (no Ray)",
)
@click.option("--workers", type=click.IntRange(min=1), help="how many at once  [default: all that fit]")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="CPU threads of each worker")
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(min=0, min_open=True),
    help="share of a GPU, on cuda  [default: 1.0]",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto")
@click.option(
    "--shard-timeout",
    type=click.FloatRange(min=1),
    help="seconds after which a shard is made again elsewhere  [default: 4 times the median shard, 60 at least]",
)
@click.option("--insecure", is_flag=True, help="use a cluster that anybody who reaches it may use")
@click.option(
    "--log-level",
    type=click.Choice(["off", "debug", "info", "warning", "error"]),
    default="off",
    help="log JSON lines to stderr",
)
@settings_flags(*SYNTHESIS_SETTINGS.values())
def generate(
    teacher: Path,
    arch: str | None,
    per_class: int,
    classes: tuple[int, ...] | None,
    out: str,
    method: str,
    preset: str,
    shard_size: int,
    blends: int,
    generator: Path | None,
    student: Path | None,
    quality_gate: str | None,
    seed: int,
    resume: bool,
    overwrite: bool,
    address: str,
    workers: int | None,
    threads: int,
    gpus_per_worker: float | None,
    device: str,
    shard_timeout: float | None,
    insecure: bool,
    log_level: str,
    **flags: Any,
) -> None:
    """Make images of every class and publish them as shards.

    The same teacher, options and seed give the same bytes on one kind of device, whatever the number of workers or
    interruptions.
    """
    if preset != "tuned" and (method, preset) not in SYNTHESIS_PRESETS:
        raise UsageError(f"--preset {preset} is none of --method {method}: leave it out")
    base = SYNTHESIS_PRESETS.get((method, preset), SYNTHESIS_SETTINGS[method]())
    settings = settings_from_flags(base, flags, f"--method {method}")
    if flags["start"] is not None and getattr(settings, "warm_start", False):
        raise UsageError("--start has no effect on --warm-start, which starts from a generator's images: leave one out")
    try:
        gate = QualityGate.parse(quality_gate) if quality_gate else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    from synth.run.generate import Request, generate_run

    request = Request(
        teacher=teacher,
        trusted_architecture=arch,
        method=method,
        settings=settings,
        classes=classes,
        per_class=per_class,
        shard_size=shard_size,
        blends=blends,
        seed=seed,
        out=out,
        resume=resume,
        overwrite=overwrite,
        address=address,
        workers=workers,
        threads=threads,
        gpus_per_worker=gpus_per_worker,
        device=device,
        shard_timeout=shard_timeout,
        insecure=insecure,
        log_level=log_level,
        generator=generator,
        student=student,
        gate=gate,
    )
    generate_run(request, say=lambda line: click.echo(line, err=True))


@main.command(context_settings=FROM_ENVIRONMENT)
@click.argument("uri")
def verify(uri: str) -> None:
    """Check every hash, count, key and value of a run."""
    from synth.basics.progress import counted
    from synth.run.publish import verify as verify_run
    from synth.shards.store import open_store

    index, problems = verify_run(open_store(uri))
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    if problems:
        raise SystemExit(1)
    click.echo(f"{uri}: {counted(len(index.entries), 'shard')}, {index.samples:,} samples, all as the index says")


@main.command(context_settings=FROM_ENVIRONMENT)
@click.argument("uri")
def status(uri: str) -> None:
    """What is published, what is missing, rate and time left."""
    from synth.run.view import describe
    from synth.shards.store import open_store

    click.echo(describe(open_store(uri)))


@main.command(context_settings=FROM_ENVIRONMENT)
@click.argument("uri")
@click.option(
    *("-o", "--out"),
    type=click.Path(path_type=Path),
    default="grid.png",
    envvar="SYNTH_PREVIEW_OUT",
    allow_from_autoenv=False,  # SYNTH_OUT is a run's place
    show_envvar=True,
    help="PNG to write",
)
@click.option("--columns", type=click.IntRange(1, 100), default=10, help="images a class")
def preview(uri: str, out: Path, columns: int) -> None:
    """A labelled grid of a run's first images, one class a row, with the teacher's confidence."""
    from synth.run.view import draw_grid
    from synth.shards.store import open_store

    draw_grid(open_store(uri), columns, out)
    click.echo(f"wrote {out}")


@main.command(context_settings=FROM_ENVIRONMENT)
@click.argument("uri")
@click.option("--teacher", type=click.Path(path_type=Path), default="teacher.safetensors", help="the run's checkpoint")
@click.option("--arch", help="module:function of the checkpoint's architecture, if it is your own code")
@click.option("--images", type=click.IntRange(min=2), default=10_000, help="of the run, how many to look at")
def diversity(uri: str, teacher: Path, arch: str | None, images: int) -> None:
    """How different a run's images are: per class duplicates, and the spread of the teacher's features."""
    from synth.checkpoint.file import load_checkpoint
    from synth.run.diversity import diversity_table, measure
    from synth.shards.store import open_store

    model = load_checkpoint(teacher, arch)
    click.echo(diversity_table(measure(open_store(uri), model, images), model.card.class_names))
