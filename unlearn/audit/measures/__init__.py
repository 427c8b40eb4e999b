"""The measures, in the order of the table, and a run of all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module

from unlearn.audit.bench import Bench
from unlearn.audit.record.record import CannotRunError, Measurement, NotRun

MEASURES = {
    "accuracy": "unlearn.audit.measures.accuracy",
    "retained": "unlearn.audit.measures.retained",
    "divergence": "unlearn.audit.measures.divergence",
    "head": "unlearn.audit.measures.head",
    "probe": "unlearn.audit.measures.probe",
    "relearn": "unlearn.audit.measures.relearn",
    "transplant": "unlearn.audit.measures.transplant",
    "membership": "unlearn.audit.measures.membership",
    "resurrection": "unlearn.audit.measures.resurrection",
}


def run_measures(
    bench: Bench, say: Callable[[str], None] = lambda line: None
) -> tuple[list[Measurement], list[NotRun], dict[str, float]]:
    """Every measurement that the bench allows, what could not be run, and the seconds that each measure took."""
    found: list[Measurement] = []
    missing: list[NotRun] = []
    seconds: dict[str, float] = {}
    for name, module in MEASURES.items():
        started = time.monotonic()
        try:
            found += import_module(module).measure(bench)
        except CannotRunError as error:
            missing.append(NotRun(name, error.why, error.cure))
            say(f"{name}: not run, {error.why}")
            continue
        seconds[name] = round(time.monotonic() - started, 3)
        say(f"{name}: {seconds[name]:.1f} s")
    return found, missing, seconds
