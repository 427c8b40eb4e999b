"""Metrics as TensorBoard events. To see them: `tensorboard --logdir FOLDER`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synth.basics.disk import create_folder, one_line_os_errors
from unlearn.optimise import Log
from unlearn.run.loggers.logged_run import LoggedRun

PACKAGE = "tensorboard"
TARGET = "FOLDER"
TARGET_IS_OPTIONAL = False


def check(folder: str, run: LoggedRun) -> None:
    """Raises UserError if the folder cannot be created."""
    create_folder(Path(folder) / run.part)


@contextmanager
def opened(folder: str, run: LoggedRun) -> Iterator[Log]:
    """A log that writes each value as a scalar. In a sweep each run has its own folder inside.

    Events of later steps that an earlier run left there are hidden: this run repeats these steps.
    """
    from torch.utils.tensorboard import SummaryWriter

    place = Path(folder) / run.part
    with SummaryWriter(str(place), purge_step=run.done + 1) as writer:

        def log(step: int, values: dict[str, float]) -> None:
            with one_line_os_errors(place, writing=True):
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
                writer.flush()

        yield log
