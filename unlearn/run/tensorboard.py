"""Metrics as TensorBoard events as well. To see them: `tensorboard --logdir FOLDER`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from synth.basics.disk import one_line_os_errors
from synth.basics.errors import UsageError
from synth.shards.store import Folder
from unlearn.optimise import Log


def check(folder: Path) -> None:
    """Raises UsageError if the package is not installed, UserError if the folder cannot be made."""
    if find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs the package tensorboard: install it with pip install '.[tensorboard]'")
    Folder(folder).create()


@contextmanager
def events(folder: Path | None, done: int, again: str) -> Iterator[Log]:
    """A log that writes each value as a scalar into the folder. Without a folder it writes nothing.

    It writes the records itself: torch's SummaryWriter has a thread of its own, whose errors come as a traceback.

    Args:
        done: steps that were done before the run was resumed. Events of later steps are hidden: the run repeats these
        steps.
        again: what a person does once the folder can be written again.

    Raises:
        UserError: an event cannot be written.
    """
    if folder is None:
        yield lambda step, values: None
        return
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    Folder(folder, again).create()
    path = folder / f"events.out.tfevents.{int(time.time()):010d}.{uuid.uuid4().hex}"

    def write(*written: Event) -> None:
        with one_line_os_errors(path, writing=True, again=again), path.open("ab") as file:
            for event in written:
                RecordWriter(file).write(event.SerializeToString())

    def log(step: int, values: Mapping[str, float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        write(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    begun = SessionLog(status=SessionLog.START)
    hides = [Event(wall_time=time.time(), step=done + 1, session_log=begun)] if done else []
    write(Event(wall_time=time.time(), file_version="brain.Event:2"), *hides)
    yield log
