"""What a logger knows of a run, and what it keeps in the run's folder to continue a log after an interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth.basics.disk import write_file
from synth.basics.errors import UserError
from synth.basics.foreign_json import parse_object
from synth.basics.progress import Say
from synth.basics.regular_files import read_regular
from synth.basics.way_on import START_AGAIN
from unlearn.run.folder import LARGEST_SETTINGS


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """A run of a method, or a training."""

    place: Path  # the run's folder, or the checkpoint that the training writes
    settings: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""  # in a sweep: which of its runs this is, such as entropy-0.2/seed-0
    done: int = 0  # steps that were done before the run was resumed
    replaces: bool = False  # whether the run may replace the log of an earlier run
    memory: Path | None = None  # where services' logs of it are noted; None for a run that cannot be resumed
    again: str = START_AGAIN  # what a person does once the log can be written again
    say: Say = print

    @property
    def name(self) -> str:
        return self.part or self.place.stem


def recall(run: LoggedRun, service: str) -> dict[str, Any]:
    """What an earlier part of the run remembered of its log in a service. Empty if it has none there."""
    return all_remembered(run.memory).get(service, {})


def remember(run: LoggedRun, service: str, **facts: Any) -> None:
    if run.memory is not None:
        content = {**all_remembered(run.memory), service: facts}
        write_file(run.memory, (json.dumps(content, indent=1) + "\n").encode())


def all_remembered(memory: Path | None) -> dict[str, dict[str, Any]]:
    if memory is None or not memory.exists():
        return {}
    try:
        return parse_object(read_regular(memory, LARGEST_SETTINGS))
    except (OSError, ValueError) as error:
        raise UserError(f"{memory} is damaged: remove it; the run then begins new logs") from error


def in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
