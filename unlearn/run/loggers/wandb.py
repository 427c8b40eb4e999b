"""Metrics to Weights & Biases. With WANDB_MODE=offline they stay in ./wandb until `wandb sync` sends them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from synth.basics.errors import UsageError, UserError
from unlearn.optimise import Log
from unlearn.run.loggers.logged_run import LoggedRun, Sent, in_one_line, recall, remember

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
            id=before.id if before else None,
            resume="allow" if before else None,
            name=run.name,
            config=dict(run.settings),
            settings=wandb.Settings(console="off"),  # otherwise it takes over the standard output
        )
    except wandb.Error as error:
        raise UserError(f"--log-to wandb: {in_one_line(error)}") from error
    sent = before or Sent(session.id)
    remember(run, service, sent)
    with session:  # its end sends what is left

        def log(step: int, values: dict[str, float]) -> None:
            if step > sent.step:
                session.log(values, step=step)
                sent.step = step
                remember(run, service, sent)

        yield log
