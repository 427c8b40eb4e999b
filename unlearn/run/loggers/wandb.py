"""Metrics to Weights & Biases. With WANDB_MODE=offline they stay in ./wandb until `wandb sync` sends them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from synth.basics.errors import UsageError, UserError
from unlearn.optimise import Log
from unlearn.run.loggers.logged_run import LoggedRun, in_one_line, recall, remember

PACKAGE = "wandb"
TARGET = "PROJECT"
TARGET_IS_OPTIONAL = False


def check(project: str, run: LoggedRun) -> None:
    """Raises UsageError if the user is not logged in. It asks for the key on a terminal."""
    import wandb

    try:
        wandb.login()
    except (wandb.Error, ValueError) as error:
        raise UsageError(
            f"--log-to wandb: {in_one_line(error)} (log in with `wandb login`, or set WANDB_MODE=offline)"
        ) from error


@contextmanager
def opened(project: str, run: LoggedRun) -> Iterator[Log]:
    """A log of one run in the project. A resumed run continues its log and sends no step twice."""
    import wandb

    service = f"wandb:{project}"
    before = recall(run, service)
    try:
        session = wandb.init(
            project=project,
            id=before.get("id"),
            resume="allow" if before else None,
            name=run.name,
            config=dict(run.settings),
            settings=wandb.Settings(console="off"),  # otherwise it takes over the standard output
        )
    except wandb.Error as error:
        raise UserError(f"--log-to wandb: {in_one_line(error)}") from error
    last = before.get("step", 0)
    remember(run, service, id=session.id, step=last)

    def log(step: int, values: dict[str, float]) -> None:
        nonlocal last
        if step > last:
            session.log(values, step=step, commit=True)
            last = step

    try:
        with session:  # its end writes what is left
            yield log
    finally:
        # Not after each step: an offline log that is killed loses its last ten seconds or so, and these steps are sent
        # again.
        remember(run, service, id=session.id, step=last)
