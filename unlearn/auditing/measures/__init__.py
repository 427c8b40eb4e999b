"""The measures of an audit, one per file, and a run of all of them.

A measure is a module. Its docstring is the definition that the report prints. It has

    measure(bench: Bench) -> list[Measurement]    every measurement that the bench allows; raises CannotRunError if an
                                                  input is missing
    DETAILS: dict[str, dict[str, schema]]         by family and by a pattern of the measurement's name: the JSON schema
                                                  of the measurement's details
    TASKS: tuple[str, ...]                        optional: what the models do, if not both "classification" and
                                                  "regression"
    FROM_REAL, FROM_REAL_FORGET: tuple[str, ...]  optional: what is left out without real images, and without real
                                                  images of the forget classes

A new measure is one new file and its name in MEASURES. A measure of another package is announced by that package, as an
entry point of the group `data_free_unlearning.audit_measures` that names the module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from synth.basics.errors import UsageError, UserError
from synth.basics.plugins import Plugins
from synth.basics.settings import shortened
from unlearn.auditing.audit_settings import AuditSettings
from unlearn.auditing.bench import Bench, NotKeptError
from unlearn.auditing.record.record import NOT_CHOSEN, CannotRunError, Measurement, NotRun

MEASURES = Plugins(
    kind="audit measure",
    package="unlearn.auditing.measures",
    own=(  # in the order of the table
        "accuracy",
        "retained",
        "divergence",
        "head",
        "probe",
        "layers",
        "relearn",
        "transplant",
        "range_errors",
        "membership",
        "resurrection",
    ),
    group="data_free_unlearning.audit_measures",
)


@cache
def modules() -> Mapping[str, Any]:
    """Every measure's module by its name: ours first, then those of other packages.

    Raises:
        UserError: the module of another package lacks a part of a measure.
    """
    found = {name: MEASURES.find(name) for name in MEASURES.names()}
    for name, module in found.items():
        for part in ("measure", "DETAILS", "__doc__"):
            if not getattr(module, part, None):
                raise UserError(f"the audit measure '{name}' has no {part}: update its package, or uninstall it")
    return found


def added_versions() -> dict[str, str]:
    """The version of each package that adds a measure."""
    points = entry_points(group=MEASURES.group)
    return {point.dist.name: point.dist.version for point in points if point.dist and point.name not in MEASURES.own}


def left_out(attribute: str, but: str = "") -> str:
    """What the measures cannot do without real images: the phrases of all modules in FROM_REAL or FROM_REAL_FORGET, but
    for those of the measure `but`.
    """
    found = [getattr(module, attribute, ()) for name, module in modules().items() if name != but]
    return ", ".join(phrase for phrases in found for phrase in phrases)


def for_task(module: Any, bench: Bench) -> bool:
    """Whether the measure is one for these models."""
    task = "classification" if bench.target is None else "regression"
    return task in getattr(module, "TASKS", (task,))


def check_chosen(settings: AuditSettings, bench: Bench | None = None) -> None:
    """Raise UsageError if the settings choose a measure that does not exist or, given a bench, none that is for its
    models.
    """
    for name in settings.chosen:
        MEASURES.check(name)
    if bench and settings.chosen and not any(for_task(modules()[name], bench) for name in settings.chosen):
        fitting = [name for name, module in modules().items() if for_task(module, bench)]
        raise UsageError(
            f"--measures {shortened(settings.measures)} is not for these models: choose from {', '.join(fitting)}"
        )


def chosen_of(bench: Bench) -> dict[str, Any]:
    """The modules of the measures for these models that the person did not leave out, by name."""
    chosen = bench.settings.chosen
    return {n: module for n, module in modules().items() if for_task(module, bench) and (not chosen or n in chosen)}


def run_measures(
    bench: Bench, say: Callable[[str], None] = lambda line: None
) -> tuple[list[Measurement], list[NotRun], dict[str, float]]:
    """Every measurement that the bench allows, what could not run, and the seconds that each module took.

    A measure that cannot work on these inputs is listed as not run, with the reason. Any other exception is a fault of
    the code and is passed on.
    """
    found: list[Measurement] = []
    missing: list[NotRun] = []
    seconds: dict[str, float] = {}
    chosen = chosen_of(bench)
    for name, module in modules().items():
        if not for_task(module, bench):
            continue
        if name not in chosen:
            missing.append(NotRun(name, NOT_CHOSEN, "audit again without --measures"))
            continue
        started = time.monotonic()
        try:
            measured = module.measure(bench)
        except CannotRunError as error:
            missing.append(NotRun(name, error.why, error.cure))
            say(f"{name}: not run, {error.why}")
            continue
        except NotKeptError:
            raise
        except UserError as error:  # names its cause and cure in one line
            missing.append(NotRun(name, str(error), "remove the cause that the reason names"))
            say(f"{name}: not run, {error}")
            continue
        seconds[name] = round(time.monotonic() - started, 3)
        say(f"{name}: {seconds[name]:.1f} s")
        for measurement in measured:
            undefined = [subject for subject, reading in measurement.readings.items() if not reading.finite]
            if undefined:
                why = f"the value of {undefined[0]} is infinite or not a number"
                missing.append(NotRun(measurement.name, why, "check that no model answers with NaN or infinity"))
                say(f"{measurement.name}: not run, {why}")
            else:
                found.append(measurement)
    return found, missing, seconds
