"""Metrics as TensorBoard events too, for who would rather look: `tensorboard --logdir FOLDER`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from synth.basics.errors import UsageError
from synth.shards.store import Folder
from unlearn.optimise import Log


def check(folder: Path) -> None:
    """Raises UsageError where the package isn't here, UserError where the folder can't be made."""
    if find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs a package that isn't here: install it with pip install '.[tensorboard]'")
    Folder(folder).create()


@contextmanager
def events(folder: Path | None, done: int) -> Iterator[Log]:
    """A log that writes one scalar a value into the folder, and nothing where there is none.

    Args:
        done: steps that a resumed run has behind it; events of later ones, which it makes again, are hidden.
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
