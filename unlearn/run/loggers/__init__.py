"""Where a run's metrics go besides its own metrics.jsonl. One logger per file. A logger's file has

    PACKAGE                the package that it needs; None if it needs none
    TARGET                 what stands after the colon of `--log-to`
    TARGET_IS_OPTIONAL     whether that may be left out
    check(target, run)     raises UserError if it cannot write there; called before the work begins
    opened(target, run)    a context manager that gives the log (`unlearn.optimise.Log`)

A log of an interrupted run goes on where the run goes on, and no step stands in it twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from synth.basics.errors import UsageError
from unlearn.optimise import Log
from unlearn.run.loggers.logged_run import LoggedRun

LOGGERS = {name: f"{__name__}.{name}" for name in ("csv", "tensorboard", "wandb", "mlflow")}


@dataclass(frozen=True)
class Destination:
    """One `--log-to`: a logger, and where it writes."""

    logger: str
    target: str | None

    @property
    def module(self) -> Any:
        return import_module(LOGGERS[self.logger])


def parse(text: str) -> Destination:
    """`csv`, `tensorboard:FOLDER` and so on. Raises UsageError if this is no logger, or if its package is absent."""
    name, _, target = text.partition(":")
    if name not in LOGGERS:
        raise UsageError(f"--log-to {text}: there is no logger '{name}': choose {', '.join(LOGGERS)}")
    destination = Destination(name, target or None)
    module = destination.module
    if not (target or module.TARGET_IS_OPTIONAL):
        raise UsageError(f"--log-to {text} needs a place: write --log-to {name}:{module.TARGET}")
    if module.PACKAGE and not is_installed(module.PACKAGE):
        raise UsageError(
            f"--log-to {name} needs the package {module.PACKAGE}: install it with pip install '.[{module.PACKAGE}]'"
        )
    return destination


def is_installed(package: str) -> bool:
    """Whether a package is there. A folder of its name, such as the one that wandb writes, is none."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def check(destinations: Sequence[Destination], run: LoggedRun) -> None:
    """Raises UserError if one of them cannot be written."""
    for destination in destinations:
        destination.module.check(destination.target, run)


@contextmanager
def opened(destinations: Sequence[Destination], run: LoggedRun) -> Iterator[Log]:
    """One log that writes to all of them."""
    with ExitStack() as stack:
        logs = [stack.enter_context(d.module.opened(d.target, run)) for d in destinations]

        def log(step: int, values: dict[str, float]) -> None:
            for write in logs:
                write(step, values)

        yield log
