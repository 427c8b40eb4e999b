"""What a replay will do, in words. It is said first, because the settings in a report may ask for days of work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from synth.basics.progress import counted
from unlearn.auditing.audit import Request
from unlearn.auditing.audit_settings import AuditSettings, counts
from unlearn.report.printable import printable


def announcement(record: Mapping[str, Any], request: Request, retrain: bool) -> Iterator[str]:
    """A line for the student's run if it is made again, and two for the audit."""
    settings = request.settings
    if retrain:
        yield from run_again(record)
    models = [counted(settings.random_models, "random model")]
    if request.references:
        models.insert(0, counted(len(request.references), "retrained model"))
    yield (
        f"{counted(len(record['measurements']), 'measurement')} of the student, the teacher and the masked logit, "
        f"{' and '.join(models)}, on {request.device}"
    )
    yield (
        f"{counted(len(counts(settings.relearn_labels)), 'relearning curve')} of {settings.relearn_steps:,} steps and "
        f"a resurrection of {settings.inversion_steps:,} steps per model and repeat; {settings.repeats:,} repeats of "
        f"these, {settings.draws:,} draws of the quick measures{unlike_defaults(settings)}"
    )


def announcement_on_points(record: Mapping[str, Any], retrain: bool) -> Iterator[str]:
    """A line for the student's run if it is made again, and one for the audit of points."""
    if retrain:
        yield from run_again(record)
    retrained = counted(len(record["models"]["references"]), "retrained model")
    yield f"asks the student, the teacher and {retrained} about {counted(len(record['points']), 'point')}, on cpu"


def run_again(record: Mapping[str, Any]) -> Iterator[str]:
    """A line for the student's run, if the record has one."""
    if not record["origin"]["run"]:
        return
    run = record["origin"]["run"]["settings"]
    lengths = [f"{name} {run[name]}" for name in sorted(run) if name.endswith(("steps", "rounds", "batch_size"))]
    what = f"{run.get('method')} ({', '.join(lengths)})" if lengths else f"{run.get('method')}"
    yield printable(f"first the student is made again by {what}")


def unlike_defaults(settings: AuditSettings) -> str:
    """The settings that are not the defaults, since a reader knows the time that these take."""
    defaults = dataclasses.asdict(AuditSettings())
    others = [f"{name} {value}" for name, value in dataclasses.asdict(settings).items() if value != defaults[name]]
    return f" (not the defaults: {', '.join(others)})" if others else " (the defaults)"
