"""What one run of a method was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth.basics.settings import check_type, require
from synth.basics.way_on import WayOn
from synth.checkpoint.class_choice import Classes
from unlearn.run.loggers import Destination
from unlearn.samples.memory import DEFAULT
from unlearn.samples.point_settings import PointSettings
from unlearn.settings import LoopSettings, check_asked

MOST_ROUNDS = 100


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a method's command was asked for."""

    method: str
    settings: Any
    loop: LoopSettings
    teacher: Path | None = None  # None for a method that learns from shards only
    trusted_architecture: str | None = None
    start_from: Path | None = None  # a checkpoint of public weights for the student
    shards: str | Sequence[str] | None = None  # runs of one teacher
    memory: str = DEFAULT  # for decoded images
    window: int | None = None  # shards that are shuffled together; None for as many as fit
    forget: Classes
    forget_points: Path | None = None  # a folder of single images
    points: PointSettings = field(default_factory=PointSettings)
    out: Path
    student_arch: str | None = None
    student_width: float | None = None
    follow_timeout: float | None = None  # seconds without a new shard; None requires a complete run of shards
    resume: bool = False
    overwrite: bool = False
    rounds: int = 1  # of synthesis and training; for methods that may use the teacher (`unlearn.run.rounds`)
    address: str = "none"  # where the images of later rounds are made, as for `synth generate`
    seed: int = 0
    device: str = "cpu"
    log_to: tuple[Destination, ...] = ()  # besides metrics.jsonl
    part: str = ""  # in a sweep: which of its runs this is, such as entropy-0.2/seed-0
    started_by: WayOn | None = None  # the command that a person started, if it is another than `unlearn METHOD`

    @property
    def way_on(self) -> WayOn:
        """What a person can do after the run broke off, for its errors."""
        return self.started_by or WayOn(command=f"unlearn {self.method}")

    @property
    def places(self) -> tuple[str, ...]:
        """The places of the runs of shards."""
        return (self.shards,) if isinstance(self.shards, str) else tuple(self.shards or ())

    def __post_init__(self) -> None:
        check_asked(self.seed, self.forget, self.student_arch, self.student_width)
        check_type("rounds", self.rounds, (int,))
        require(1 <= self.rounds <= MOST_ROUNDS, f"rounds must be within 1 and {MOST_ROUNDS}, not {self.rounds}")
        check_type("window", self.window, (int, type(None)))
        require(self.window is None or self.window >= 1, "window must be 1 shard or more")
