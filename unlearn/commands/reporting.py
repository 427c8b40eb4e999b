"""`unlearn report`, `verify` and `replay`: parse, call, print; no logic."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from synth.basics.errors import UserError
from synth.commands.printing import note, say
from unlearn.commands.options import FROM_ENVIRONMENT, PATH, code_option, threads_option

teacher_option = click.option("--teacher", type=PATH, help="where the teacher is now, if not where the report has it")
student_option = click.option("--student", type=PATH, help="where the student is now")
references_option = click.option(
    "--reference", "references", type=PATH, multiple=True, help="where the retrained models are now, in their order"
)
public_option = click.option("--public", type=PATH, help="where the public weights are now")
points_option = click.option(
    "--forget-points", "points", type=PATH, help="where the folder of the points to forget is now"
)
shards_option = click.option("--shards", help="where the audit's shards are now")
run_shards_option = click.option(
    "--run-shards",
    multiple=True,
    help="where the shards that the student learnt from are, if others; of several runs, each in their order",
)


@click.command(context_settings=FROM_ENVIRONMENT)
@click.argument("run", type=PATH)
@click.option(
    *("-o", "--out"),
    type=PATH,
    default="report.html",
    envvar="UNLEARN_REPORT_OUT",
    allow_from_autoenv=False,  # UNLEARN_OUT is a run's place, or a checkpoint's
    show_envvar=True,
    help="page to write",
)
def report(run: Path, out: Path) -> None:
    """Write an audit as one web page. RUN is the folder of an audit of classes or of points, its audit.json, or an
    earlier page of it.
    """
    from unlearn.report.write import write_report

    size = write_report(run, out)
    say(f"wrote {out} ({size / 1e6:.1f} MB)")


@click.command(context_settings=FROM_ENVIRONMENT)
@click.argument("report", type=PATH)
@teacher_option
@student_option
@references_option
@public_option
@shards_option
@run_shards_option
@points_option
def verify(report: Path, references: tuple[Path, ...], **places: Any) -> None:
    """Check a report's hashes, numbers and verdict. REPORT is a page or an audit.json.

    No model runs: whether the models really give these values is for 'unlearn replay' to check.
    """
    from unlearn.report.places import Places
    from unlearn.report.verify import checks as checking
    from unlearn.report.verify import verify as verifying

    checks = verifying.verify(report, Places(references=references, **places))
    for check in checks:
        say(f"{check.state:12s} {check.what}{f' ({check.why})' if check.why else ''}")
    say(checking.summary(checks))
    broken = [check for check in checks if check.state == checking.BROKEN]
    if broken:
        raise UserError(f"{report} does not hold: {broken[0].what}: {broken[0].why}")


@click.command(context_settings=FROM_ENVIRONMENT)
@click.argument("report", type=PATH)
@teacher_option
@student_option
@shards_option
@run_shards_option
@points_option
@references_option
@public_option
@click.option("--data-root", type=PATH, help="where the data set is now")
@click.option("--retrain", is_flag=True, help="make the student again too, from its run's settings and shards")
@click.option(
    "--out",
    type=PATH,
    envvar="UNLEARN_REPLAY_OUT",
    allow_from_autoenv=False,
    show_envvar=True,
    help="folder to keep what is made in  [default: none is kept]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    help="where to make it  [default: as the report has it]",
)
@code_option
@threads_option
def replay(
    report: Path,
    out: Path | None,
    data_root: Path | None,
    references: tuple[Path, ...],
    arch: str | None,
    threads: int | None,
    retrain: bool,
    device: str | None,
    **places: Any,
) -> None:
    """Repeat the audit of REPORT and compare every value. With --retrain its student is trained again, too."""
    from unlearn.report.places import Places
    from unlearn.report.replay import replay as replaying

    now = Places(references=references, **places)
    with tempfile.TemporaryDirectory() as temporary:
        place = out or Path(temporary)
        found = replaying.replay(report, place, now, data_root, arch, threads, note, retrain, device)
    if found.same_student is not None:
        say(f"the student made again is {'the same, byte for byte' if found.same_student else 'another one'}")
    say(f"{found.equal} of {found.measures} measures have the same values")
    if found.largest:
        say(f"the largest difference is {found.largest:.3g}, in {found.where}")
    say(f"verdict then: {found.conclusions[0]}; now: {found.conclusions[1]}")
    if not found.agrees:
        what = ", ".join(found.outside) or "the verdict"
        raise UserError(f"the replay does not agree with {report}: {what}")
