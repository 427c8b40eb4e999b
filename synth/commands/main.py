"""`synth ...`: parse, call, print; no logic. torch and ray are loaded by the commands that need them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from synth.basics.errors import UsageError
from synth.commands.config import config_option, unlike_defaults
from synth.commands.console import ClassText, Console, ShardSize
from synth.commands.options import MACHINE, Command, option, settings_flags, settings_from_flags, stacked
from synth.commands.printing import echo, note, say
from synth.commands.recognising import recognise
from synth.making.gate import QualityGate
from synth.methods import METHODS
from synth.methods.presets import DECLARED_AS, PHOTO_SIDE, TUNED, Form, methods_own, presets_for, presets_in
from synth.shards.plan import IMAGE_FORMATS

FROM_ENVIRONMENT = {"auto_envvar_prefix": "SYNTH", "show_default": True, "max_content_width": 110}
PATH = click.Path(path_type=Path)
WHAT, WHERE = "What to generate", "Where"
DECLARED = {name: METHODS.declared(name) for name in METHODS.names()}
SETTINGS = {name: declared.SETTINGS for name, declared in DECLARED.items()}
PRESETS = {form: {name: presets_in(declared, form) for name, declared in DECLARED.items()} for form in Form}


def steps_of_presets(method: str, form: Form) -> str:
    """How many steps each preset of a form takes, such as `tuned 200, lean 60`."""
    return ", ".join(f"{name} {settings.steps:,}" for name, settings in PRESETS[form][method].items())


@click.group(cls=Console, context_settings=FROM_ENVIRONMENT)
@click.version_option(package_name="data-free-unlearning")
def main() -> None:
    """Generate training images from a checkpoint and publish them as WebDataset shards.

    Every option can also come from the environment: SYNTH_TEACHER sets --teacher, and so on (SYNTH_PREVIEW_OUT sets the
    --out of preview).
    """


def options_of_run(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of `synth generate` that a run's index stands for; other files hold options by name."""
    if "run" not in content:
        return content
    run = content["run"]
    plan = {{"blends": "views"}.get(name, name): value for name, value in run["plan"].items()}  # before format 2
    gate = run["settings"].get("quality_gate")
    settings: Mapping[str, Any] = methods_own(run["settings"])
    if run["method"] in DECLARED:
        settings = unlike_defaults(settings, presets_for(DECLARED[run["method"]], run["image_shape"])[TUNED])
    # A number alone could be read as the name of another class. The warm start has a start of its own.
    plan["classes"] = [f"index:{c}" for c in plan["classes"]]
    settings = {name: value for name, value in settings.items() if name != "start" or not settings.get("warm_start")}
    bounds = {name: value for name, value in (gate or {}).items() if value is not None}
    written = ",".join(f"{name}={value}" for name, value in bounds.items())
    return {**settings, **plan, "method": run["method"], "quality_gate": written or None}


def refuse_blends(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise UsageError(f"--blends is now --views: give --views {value[:20]}")


what_to_generate = stacked(
    option("--teacher", group=WHAT, type=PATH, default="teacher.safetensors", help="the checkpoint to invert"),
    option("--arch", group=WHAT, help="module:function of the checkpoint's architecture, if it is your own code"),
    option(
        *("--per-class", "--per-bin", "per_class"),
        group=WHAT,
        type=int,
        required=True,
        help="images per class; of a regressor, images per bin of its target",
    ),
    option(
        "--classes",
        group=WHAT,
        type=ClassText(),
        multiple=True,
        help="classes by name or number, such as cat,dog or 1-9; may be repeated  [default: all]",
    ),
    option("--method", group=WHAT, type=click.Choice(METHODS.names()), default="deepinversion"),
    option(
        "--preset",
        group=WHAT,
        type=click.Choice(list(dict.fromkeys(name for presets in PRESETS[Form.SMALL].values() for name in presets))),
        default=TUNED,
        help="settings to start from; steps per image of deepinversion: tuned 100, lean 10, quick 5, warm 10 (from a "
        f"generator's images), published 2,000; for colour images below {PHOTO_SIDE} px: "
        f"{steps_of_presets('deepinversion', Form.THUMBNAIL)}; for images of {PHOTO_SIDE} px or more: "
        f"{steps_of_presets('deepinversion', Form.PHOTO)}",
    ),
    option(
        "--views",
        group=WHAT,
        type=int,
        default=9,
        help="views per image: shifted mixtures with another image, which the teacher labels too",
    ),
    option(
        "--view-crop",
        group=WHAT,
        rare=True,
        type=float,
        default=1.0,
        help="smallest share of the image's area that a view shows; 1 crops nothing",
    ),
    option("--blends", group=WHAT, hidden=True, expose_value=False, callback=refuse_blends),
    option(
        "--quality-gate",
        group=WHAT,
        help="generate an image again if it misses these bounds, such as copies=0.8,confidence=0.9,entropy=0.5,tries=3",
    ),
    option(
        "--generator",
        group=WHAT,
        rare=True,
        type=PATH,
        help="a trained generator, such as another run's generator.safetensors, instead of training one",
    ),
    option(
        "--student",
        group=WHAT,
        type=PATH,
        help="make images that this student gets wrong and the teacher knows, for a second round",
    ),
    option("--seed", group=WHAT, type=int, default=0, help="random seed"),
)
where_to = stacked(
    option("--out", group=WHERE, default="shards", help="folder or s3://BUCKET/RUN to publish in"),
    option("--resume", group=WHERE, is_flag=True, help="generate only the shards that the run still lacks"),
    option("--overwrite", group=WHERE, is_flag=True, help="replace the run that is there"),
    option(
        "--image-format",
        group=WHERE,
        rare=True,
        type=click.Choice(IMAGE_FORMATS),
        help="image files in the shards: png keeps every pixel, jpg is smaller  [default: png; jpg from 96 pixels on]",
    ),
    option(
        "--shard-size",
        group=WHERE,
        rare=True,
        type=ShardSize(),
        help="largest shard: images such as 500, or bytes such as 100MB  [default: 100MB, and at most 1000 images]",
    ),
    config_option("a run's index.json", options_of_run),
)
machine = stacked(
    option(
        "--address",
        group=MACHINE,
        default="auto",
        help="auto (RAY_ADDRESS, a Ray that runs here, or a new one), local, HOST:PORT, ray://HOST:PORT, or none "
        "(no Ray)",
    ),
    option("--workers", group=MACHINE, type=click.IntRange(min=1), help="workers at once  [default: all that fit]"),
    option("--threads", group=MACHINE, type=click.IntRange(min=1), default=1, help="CPU threads of each worker"),
    option(
        "--device",
        group=MACHINE,
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        help="device that the networks run on",
    ),
    option(
        "--gpus-per-worker",
        group=MACHINE,
        rare=True,
        type=click.FloatRange(min=0, min_open=True),
        help="share of a GPU per worker, with --device cuda  [default: 1.0]",
    ),
    option(
        "--shard-timeout",
        group=MACHINE,
        rare=True,
        type=click.FloatRange(min=1),
        help="seconds after which another worker makes a shard too  [default: 4 times the median, at least 60]",
    ),
    option(
        "--publish",
        group=MACHINE,
        rare=True,
        type=click.Choice(["auto", "workers", "head"]),
        default="auto",
        help="who writes the shards: each worker that can write to --out, otherwise the head (auto); or one of the two",
    ),
    option("--insecure", group=MACHINE, rare=True, is_flag=True, help="use a cluster that has no authentication"),
    option(
        "--log-level",
        group=MACHINE,
        rare=True,
        type=click.Choice(["off", "debug", "info", "warning", "error"]),
        default="off",
        help="write JSON log lines to stderr",
    ),
)
settings_of_methods = settings_flags(
    SETTINGS,
    {name: f"Settings of --method {name}" for name in SETTINGS},
    shared="Settings of several methods",
    forms={
        form.value: {name: presets[TUNED] for name, presets in PRESETS[form].items() if TUNED in presets}
        for form in DECLARED_AS
    },
)


@main.command(cls=Command, context_settings=FROM_ENVIRONMENT)
@what_to_generate
@where_to
@settings_of_methods
@machine
def generate(**options: Any) -> None:
    """Generate images of every class and publish them as shards.

    The same teacher, options and seed give the same bytes on one kind of device, whatever the number of workers or
    interruptions.
    """
    request = request_of_run(**options)
    from synth.run.generate import generate_run

    generate_run(request, say=note)


def request_of_run(method: str, preset: str, quality_gate: str | None, arch: str | None, **options: Any) -> Any:
    """The request to `synth.run.generate.generate_run` that the options of `synth generate` spell. Raises UsageError
    where one is wrong, before torch is loaded.
    """
    if preset not in PRESETS[Form.SMALL][method]:
        raise UsageError(f"--preset {preset} is none of --method {method}: leave it out")
    names = settings_names()
    flags = {name: value for name, value in options.items() if name in names}

    def chosen_for(form: Form) -> Any | None:
        base = PRESETS[form][method].get(preset)
        return None if base is None else settings_from_flags(base, flags, f"--method {method}")

    if flags["start"] is not None and flags["natural"]:
        raise UsageError(
            "--start has no effect on --natural, which starts from the spectrum of photographs: leave one out"
        )

    forms, refused = {}, {}
    for form in (Form.SMALL, *DECLARED_AS):
        try:
            forms[form] = of_running_method(method, chosen_for(form))
        except UsageError as error:  # decided when the teacher is known: another form may allow it
            refused[form] = error
    chosen = forms.pop(Form.SMALL, None)
    if not any(value is not None for value in (chosen, *forms.values())):
        raise refused[Form.SMALL]
    if flags["start"] is not None and getattr(chosen, "warm_start", False):
        raise UsageError("--start has no effect on --warm-start, which starts from a generator's images: leave one out")
    try:
        gate = QualityGate.parse(quality_gate) if quality_gate else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    from synth.run.request import Request

    return Request(
        method=method,
        preset=preset,
        settings=chosen,
        forms=forms,
        refused=refused,
        gate=gate,
        trusted_architecture=arch,
        **{name: value for name, value in options.items() if name not in names},
    )


def of_running_method(method: str, settings: Any) -> Any:
    """The settings as those of the method's running file; None stays None."""
    return None if settings is None else METHODS.find(method).SETTINGS(**dataclasses.asdict(settings))


def settings_names() -> set[str]:
    return {field.name for settings in SETTINGS.values() for field in dataclasses.fields(settings)}


@main.command(context_settings=FROM_ENVIRONMENT)
@click.argument("uri")
def verify(uri: str) -> None:
    """Check every hash, count, key and value of a run."""
    from synth.basics.progress import counted
    from synth.run.publish import verify as verify_run
    from synth.shards.store import open_store

    index, problems = verify_run(open_store(uri))
    for problem in problems:
        note(f"error: {problem}")
    if problems:
        raise SystemExit(1)
    say(f"{uri}: {counted(len(index.entries), 'shard')}, {index.samples:,} images, all as the index says")


@main.command(context_settings=FROM_ENVIRONMENT)
@click.argument("uri")
def status(uri: str) -> None:
    """Show how far a run is. What is published, what is missing, the rate and the time left."""
    from synth.run.view import describe
    from synth.shards.store import open_store

    echo(describe(open_store(uri)))


@main.command(context_settings=FROM_ENVIRONMENT)
@click.argument("uri")
@click.option(
    *("-o", "--out"),
    type=PATH,
    default="grid.png",
    envvar="SYNTH_PREVIEW_OUT",
    allow_from_autoenv=False,  # SYNTH_OUT is a run's place
    show_envvar=True,
    help="PNG to write",
)
@click.option("--columns", type=click.IntRange(1, 100), default=10, help="images per class")
@click.option(
    "--classes", type=ClassText(), multiple=True, help="classes by name or number; may be repeated  [default: all]"
)
@click.option(
    "--teacher",
    type=PATH,
    help="the run's checkpoint, to write below each image how many of its copies it recognises",
)
@click.option("--arch", help="module:function of the checkpoint's architecture, if it is your own code")
def preview(
    uri: str, out: Path, columns: int, classes: tuple[int | str, ...], teacher: Path | None, arch: str | None
) -> None:
    """Draw a grid of a run's first images. One row per class.

    With --teacher it shows below each image how many of its mirrored, shifted, cropped, halved and grey copies the
    teacher recognises. Before the first shard is published, the grid shows images of that shard while they are in
    work.
    """
    from synth.checkpoint.file import load_checkpoint
    from synth.run.view import draw_grid
    from synth.shards.store import open_store

    say(draw_grid(open_store(uri), columns, out, classes, load_checkpoint(teacher, arch) if teacher else None))


@main.command(context_settings=FROM_ENVIRONMENT)
@click.argument("uri")
@click.option(
    *("-o", "--out"),
    type=PATH,
    envvar="SYNTH_CARD_OUT",
    allow_from_autoenv=False,  # as above
    show_envvar=True,
    help="file to write  [default: README.md beside the shards]",
)
def card(uri: str, out: Path | None) -> None:
    """Write a dataset card for the Hugging Face Hub: what a run's images are, and how to read them."""
    from synth.run.dataset_card import write_card
    from synth.shards.store import open_store

    say(f"wrote {write_card(open_store(uri), out)}")


@main.command(context_settings=FROM_ENVIRONMENT)
@click.argument("uri")
@click.option("--teacher", type=PATH, default="teacher.safetensors", help="the run's checkpoint")
@click.option("--arch", help="module:function of the checkpoint's architecture, if it is your own code")
@click.option("--images", type=click.IntRange(min=2), default=10_000, help="images of the run to look at")
def diversity(uri: str, teacher: Path, arch: str | None, images: int) -> None:
    """Show how much a run's images differ. Duplicates per class, and the spread of the teacher's features."""
    from synth.checkpoint.file import load_checkpoint
    from synth.run.diversity import diversity_table, measure
    from synth.shards.store import open_store

    model = load_checkpoint(teacher, arch)
    echo(diversity_table(measure(open_store(uri), model, images), model.card.class_names))


main.add_command(recognise)
