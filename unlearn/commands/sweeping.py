"""`unlearn sweep`: parse, call, print; no logic."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from synth.checkpoint.class_choice import NUMBER
from synth.commands.console import NumberList
from synth.commands.options import Command, option
from synth.commands.printing import note, say
from unlearn.commands.options import (
    FROM_ENVIRONMENT,
    PATH,
    WHAT,
    WHERE,
    data_options,
    device_option,
    forget_option,
    threads_option,
)
from unlearn.commands.unlearning import COMMANDS, request_of


@click.command(cls=Command, context_settings={**FROM_ENVIRONMENT, "ignore_unknown_options": True})
@option("--method", group=WHAT, type=click.Choice(sorted(COMMANDS)), required=True, help="unlearning method to run")
@option(
    "--over",
    group=WHAT,
    required=True,
    help="a setting and its values: entropy=0.2:2.0:10 (first:last:count) or gate=0.01,0.1",
)
@option("--seeds", group=WHAT, type=NumberList(), metavar="SEEDS", default="0", help="random seeds, such as 0-2")
@forget_option
@option("--out", group=WHERE, type=PATH, required=True, help="folder for the runs, sweep.csv and sweep.svg")
@data_options()
@device_option
@threads_option
@click.argument("options", metavar="[METHOD_OPTIONS]...", nargs=-1, type=click.UNPROCESSED)
def sweep(
    method: str,
    over: str,
    seeds: tuple[int, ...],
    forget: tuple[int | str, ...],
    out: Path,
    data: str,
    data_root: Path | None,
    download: bool,
    image_size: int | None,
    device: str,
    threads: int | None,
    options: tuple[str, ...],
) -> None:
    """Run a method over the values of a setting. Every value runs with every seed, and a plot shows both accuracies.

    METHOD_OPTIONS are the method's own, such as --teacher and --shards. Started again, a sweep continues where it
    was. The accuracies come from real test images: they show what a setting does, and no setting may be chosen by
    them. Each student's provenance.json records that these images judged it.
    """
    from synth.basics.device import machine
    from unlearn.data import DataSource, quiet
    from unlearn.methods import METHODS, needs_teacher
    from unlearn.run import sweep as sweeping
    from unlearn.settings import LoopSettings, refuse_idle

    declared = METHODS.declared(method)
    swept = (declared.SETTINGS, LoopSettings) if needs_teacher(declared) else (declared.SETTINGS,)
    chosen = sweeping.Range.parse(over).check(method, *swept)
    command = COMMANDS[method]
    given = ["--out", str(out), "--device", machine(device, threads)]
    for chosen_class in forget:  # a number comes from --config
        given += ["--forget", chosen_class if isinstance(chosen_class, str) else f"{NUMBER}{chosen_class}"]
    given += ["--threads", str(threads)] if threads else []
    flags = command.make_context(command.name, [*options, *given], auto_envvar_prefix="UNLEARN").params
    request = request_of(method, flags)
    refuse_idle(getattr(declared, "IDLE", ()), request.settings, {chosen.name.replace("-", "_"): chosen.values})
    trusted = ",".join(filter(None, (request.trusted_architecture, request.student_arch)))
    source = DataSource(data, data_root, download, image_size, note)
    images = sweeping.test_images(source, request)  # before any run
    source = dataclasses.replace(source, say=quiet)  # of each student it would say the same

    def judge(student: Path) -> tuple[float, float | None]:
        return sweeping.judge_on_test_images(student, source, images, forget, trusted, request.device)

    sweeping.sweep(chosen, seeds, request, out, judge, say)
    say(f"wrote {out / sweeping.RESULTS} and {out / sweeping.PLOT}")
