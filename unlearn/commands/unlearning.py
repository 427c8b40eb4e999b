"""One command per unlearning method, made from what the method's file declares; and the request that its options
spell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import click

from synth.basics.errors import UsageError
from synth.commands.config import config_option, unlike_defaults
from synth.commands.options import MACHINE, Command, Decorator, option, settings_flags, settings_from_flags, stacked
from synth.commands.printing import say
from unlearn.commands.options import (
    FROM_ENVIRONMENT,
    PATH,
    WHAT,
    WHERE,
    WIDTH,
    Within,
    code_option,
    device_option,
    forget_option,
    forget_or_points_option,
    log_to_option,
    seed_option,
    start_option,
    threads_option,
)
from unlearn.methods import METHODS, forgets_points, needs_teacher
from unlearn.samples.memory import DEFAULT, bytes_of
from unlearn.samples.point_settings import PointSettings
from unlearn.settings import LoopSettings, idle_names, refuse_idle

FOLLOW_TIMEOUT = 3600.0  # seconds
WATCHING = "Watching the run"
NEAR_POINTS = "Single points"


def checked_memory(context: click.Context, param: click.Parameter, text: str) -> str:
    """Raises UsageError before torch is loaded."""
    bytes_of(text)
    return text


student_options = stacked(
    option("--student-arch", group=WHAT, help="architecture of the student  [default: the teacher's]"),
    option("--student-width", group=WHAT, rare=True, type=WIDTH, help="scales the student's channels"),
)
folder_options = stacked(
    option("--out", group=WHERE, type=PATH, required=True, help="folder for the student, its metrics and settings"),
    option("--resume", group=WHERE, is_flag=True, help="continue an interrupted run from its last check"),
    option("--overwrite", group=WHERE, is_flag=True, help="replace an earlier run in --out"),
    log_to_option,
)
memory_options = (
    option(
        "--memory",
        group=MACHINE,
        default=DEFAULT,
        callback=checked_memory,
        help="memory for images of the shards, such as 2GiB or 25%; a run that takes more is streamed",
    ),
    option(
        "--window",
        group=MACHINE,
        rare=True,
        type=click.IntRange(min=1),
        help="shards whose images are shuffled together; the student depends on it  [default: as many as fit]",
    ),
)
# A method that has the teacher at hand; shards are extra.
with_teacher = stacked(
    option("--teacher", group=WHAT, type=PATH, default="teacher.safetensors", help="checkpoint to unlearn from"),
    option(
        "--shards",
        group=WHAT,
        multiple=True,
        help="run of synth generate: samples to hold out, and to train on with edit; may be repeated",
    ),
    code_option,
    *memory_options,
)
# A method that reads shards only.
from_shards = stacked(
    option(
        "--shards",
        group=WHAT,
        multiple=True,
        required=True,
        help="folder or s3://BUCKET/RUN that synth generate wrote; may be repeated, for runs of one teacher",
    ),
    option("--follow", group=WHAT, is_flag=True, help="train while the shards are still being generated"),
    option(
        "--follow-timeout",
        group=WHAT,
        rare=True,
        type=Within(min=1),
        help=f"seconds without a new shard after which the run ends  [default: {FOLLOW_TIMEOUT:g}]",
    ),
    *memory_options,
)


points_option = option(
    "--forget-points",
    group=WHAT,
    type=PATH,
    help="folder of single images to forget; samples near them are dropped",
)
# A method that reads shards and may ask the teacher as well.
teacher_at_hand = stacked(
    option(
        "--teacher",
        group=WHAT,
        type=PATH,
        allow_from_autoenv=False,  # the variable is for methods that need the teacher
        help="the shards' checkpoint, if it is at hand: it labels fresh views of the images in every epoch; "
        "--keep-layers copies layers of it, and --forget-points compares samples with the points in its features too",
    ),
    option(
        "--rounds",
        group=WHAT,
        type=click.IntRange(1, 100),
        default=1,
        help="with --teacher: rounds, of which each but the first adds images that the student before gets wrong",
    ),
    option(
        "--address",
        group=MACHINE,
        rare=True,
        default="none",
        help="where these images are made: none (this process, without Ray), or a Ray cluster as for synth generate",
    ),
    code_option,
)


def options_of_method(name: str) -> Decorator:
    """Every option of the method's command."""
    method = METHODS.declared(name)
    settings: dict[str, type] = {name: method.SETTINGS}
    headings = {name: "Settings"}
    preset = [preset_option(method.PRESETS)] if method.PRESETS else []
    if needs_teacher(method):
        settings["loop"], headings["loop"] = LoopSettings, WATCHING
    points = []
    if forgets_points(method):
        settings["points"], headings["points"] = PointSettings, NEAR_POINTS
        points = [points_option]
    return stacked(
        forget_or_points_option if points else forget_option,
        *points,
        with_teacher if needs_teacher(method) else from_shards,
        *([teacher_at_hand] if getattr(method, "MAY_USE_TEACHER", False) else []),
        *([start_option] if starting_preset(method) else []),
        student_options,
        *preset,
        seed_option,
        folder_options,
        config_option("a run's settings.json", options_of_settings),
        settings_flags(settings, headings),
        device_option,
        threads_option,
    )


def starting_preset(method: Any) -> str | None:
    """The preset of a method whose student may start from public weights; None for the other methods."""
    return getattr(method, "PRESET_OF_START", None)


def start_of(method: Any, preset: str | None, start_from: object) -> Any:
    """The settings that options change: the preset's, or those of a student that starts from public weights."""
    preset = preset or (starting_preset(method) if start_from else None)
    return method.PRESETS[preset] if preset else method.SETTINGS()


def preset_option(presets: Mapping[str, Any]) -> Decorator:
    return option("--preset", group=WHAT, type=click.Choice(list(presets)), help="settings to start from")


def options_of_settings(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that a run's settings.json stands for.

    Its hashes only identify the files that the run read, and a method without the teacher has no options for its loop.
    """
    method = content.get("method")
    left_out = {"method"}
    if method in METHODS.names() and not needs_teacher(METHODS.declared(method)):
        left_out |= fields_of(LoopSettings)
    named = {name: value for name, value in content.items() if not name.endswith("_sha256") and name not in left_out}
    if method in METHODS.names():
        declared = METHODS.declared(method)
        start = start_of(declared, None, content.get("start_from"))
        named = unlike_defaults(named, start)
        known = {name: value for name, value in named.items() if name in fields_of(start)}
        try:
            idle = idle_names(getattr(declared, "IDLE", ()), dataclasses.replace(start, **known))
        except (ValueError, TypeError):  # a wrong value, which is refused where every option is
            idle = set()
        named = {name: value for name, value in named.items() if name not in idle}
    return {**named, "command": method}


def request_of(name: str, options: Mapping[str, Any]) -> Any:
    """The request to `unlearn.run.rounds.unlearn` that a command's options spell. Raises UsageError where one is
    wrong, before torch is loaded.
    """
    settings, loop = checked_settings(name, options)
    from synth.basics.device import machine
    from unlearn.run.request import Request

    module = METHODS.find(name)
    apart = fields_of(settings) | fields_of(LoopSettings) | {"preset", "follow"}
    others = {key: value for key, value in options.items() if key not in apart}
    if options.get("follow"):
        others["follow_timeout"] = options["follow_timeout"] or FOLLOW_TIMEOUT
    if forgets_points(module):
        near = {key: others.pop(key) for key in fields_of(PointSettings)}
        others["points"] = settings_from_flags(PointSettings(), near, name)
    device = machine(others.pop("device"), others.pop("threads"))
    return Request(
        method=name,
        settings=module.SETTINGS(**dataclasses.asdict(settings)),  # of the running file's class
        loop=loop if needs_teacher(module) else module.LOOP,
        device=device,
        trusted_architecture=others.pop("arch", None),
        **others,
    )


def checked_settings(name: str, options: Mapping[str, Any]) -> tuple[Any, LoopSettings]:
    """The settings of the method and of its loop. Raises UsageError where one is wrong or has no effect."""
    method = METHODS.declared(name)
    start = start_of(method, options.get("preset"), options.get("start_from"))
    own, of_loop = fields_of(start), fields_of(LoopSettings)
    settings = settings_from_flags(start, {n: v for n, v in options.items() if n in own}, name)
    loop = settings_from_flags(LoopSettings(), {n: v for n, v in options.items() if n in of_loop}, name)
    refuse_idle(getattr(method, "IDLE", ()), settings, options)
    if options.get("forget_points") is None and forgets_points(method):
        for flag in sorted(key for key in fields_of(PointSettings) if options.get(key) is not None):
            raise UsageError(f"--{flag.replace('_', '-')} has no effect without --forget-points: add that")
    if options.get("follow_timeout") is not None and not options["follow"]:
        raise UsageError("--follow-timeout has no effect without --follow: add that, or leave it out")
    return settings, loop


def fields_of(settings: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(settings)}


def command_of(name: str) -> click.Command:
    """The command `unlearn NAME`."""

    @click.command(name, cls=Command, help=METHODS.declared(name).HELP, context_settings=FROM_ENVIRONMENT)
    @options_of_method(name)
    def run(**options: Any) -> None:
        request = request_of(name, options)
        from unlearn.run import rounds

        rounds.unlearn(request, say)

    return run


COMMANDS = {name: command_of(name) for name in METHODS.names()}
