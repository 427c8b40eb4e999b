"""Metrics as TensorBoard events as well. To see them: `tensorboard --logdir FOLDER`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from synth.basics.errors import UsageError
from synth.shards.store import Folder
from unlearn.optimise import Log


def check(folder: Path) -> None:
    """Raises UsageError if the package is not installed, UserError if the folder cannot be made."""
    if find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs the package tensorboard: install it with pip install '.[tensorboard]'")
    Folder(folder).create()


@contextmanager
def events(folder: Path | None, done: int) -> Iterator[Log]:
    """A log that writes each value as a scalar into the folder. Without a folder it writes nothing.

    Args:
        done: steps that were done before the run was resumed. Events of later steps are hidden: the run repeats these
        steps.
    """
    if folder is None:
        yield lambda step, values: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=done + 1 if done else None) as writer:

        def log(step: int, values: Mapping[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)
            writer.flush()

        yield log
