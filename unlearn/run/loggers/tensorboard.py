"""Metrics as TensorBoard events. To see them: `tensorboard --logdir FOLDER`."""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from synth.basics.disk import append_to_file, create_folder
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

    Events of later steps that an earlier run left there are hidden: this run repeats these steps. The records are
    written here, because torch's SummaryWriter has a thread of its own, whose errors come as a traceback.

    Raises UserError if an event cannot be written.
    """
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    place = Path(folder) / run.part
    create_folder(place)
    path = place / f"events.out.tfevents.{int(time.time()):010d}.{uuid.uuid4().hex}"

    def write(*written: Event) -> None:
        records = io.BytesIO()
        for event in written:
            RecordWriter(records).write(event.SerializeToString())
        append_to_file(path, records.getvalue(), run.again)

    def log(step: int, values: dict[str, float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        write(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    hidden = Event(wall_time=time.time(), step=run.done + 1, session_log=SessionLog(status=SessionLog.START))
    write(Event(wall_time=time.time(), file_version="brain.Event:2"), hidden)
    yield log
