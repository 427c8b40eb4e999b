"""The loop that every method runs in: steps, metrics, checkpoints, the monitor, and the choice of the student to keep.

Everything that a method changes is in its `parts`, so a checkpoint of the parts is a checkpoint of the run: a resumed
run gives the same bytes as one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synth.basics.errors import HopelessError
from synth.checkpoint.classifier import Classifier
from unlearn.methods.method import Attentive, Method, Part, StuckError, is_finite
from unlearn.optimise import Log
from unlearn.run.monitor import Monitor, weights_of
from unlearn.settings import LoopSettings


@dataclass(frozen=True)
class Outcome:
    """The student that a run ends with. `failure` says why the run broke off, if it did."""

    student: Classifier
    step: int  # of the check that the student comes from
    ended: str  # how the run ended
    seconds: float
    failure: str | None = None


@dataclass
class Progression:
    """How far a run has come, except for the method's own parts."""

    step: int = 0
    seconds: float = 0.0
    good: dict[str, Tensor] | None = None  # the student's weights at the last check, which were finite
    good_step: int = 0


def run_method(
    method: Method,
    settings: LoopSettings,
    *,
    seed: int = 0,
    monitor: Monitor | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    save: Callable[[Mapping[str, Any]], None] = lambda state: None,
    log: Log = lambda step, values: None,
    keep: Callable[[int, Classifier], None] = lambda step, student: None,
    report: Callable[[int], None] = lambda steps: None,
) -> Outcome:
    """Run the method until it ends, the monitor stops it, or it diverges.

    Args:
        checkpoint: what an earlier run of the same method gave to `save`.
        log: gets the values of every `settings.every`-th step, and of the last step.
        keep: gets the student at each of these steps, if `settings.keep_students` is on.
        report: gets the number of steps since its last call; it is called after every step.

    Raises:
        HopelessError: the method broke off before the first check, so there is no student.
    """
    done = restore(method, monitor, checkpoint) if checkpoint else Progression()
    started = time.monotonic() - done.seconds
    ended, failure = "finished", None
    # Only networks with dropout draw from torch's global random source. Each step seeds it, so its state need not be
    # saved.
    device = method.student.mean.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        while done.step < method.steps and not (monitor and monitor.forget_class_is_back):
            torch.manual_seed(seed + (done.step << 20))
            try:
                values = method.step(done.step)
                done.step += 1
                report(1)
                if done.step % settings.every and done.step < method.steps:
                    continue
                record = check(method, values, done)
            except StuckError as error:
                failure = f"{error}"
                break
            if monitor:
                record |= monitor.judge(done.step, method.student)
                if isinstance(method, Attentive):
                    method.heed(record)
            log(done.step, record)
            if settings.keep_students:
                keep(done.step, method.student)
            done.seconds = time.monotonic() - started
            save(snapshot(method, monitor, done))
    if monitor and monitor.forget_class_is_back:
        ended = f"the forget class came back by step {done.step}"
    return outcome(method, monitor, done, failure or ended, time.monotonic() - started, failure)


def check(method: Method, values: Mapping[str, Tensor], done: Progression) -> dict[str, float]:
    """Return the values as floats, and keep a copy of the student. Raises StuckError if a value or a network is not
    finite.
    """
    record = {name: float(value) for name, value in values.items()}
    networks = {name: part for name, part in method.parts.items() if isinstance(part, nn.Module)}
    unsound = [f"its {name}" for name, value in record.items() if not math.isfinite(value)]
    unsound += [f"the network '{name}'" for name, network in networks.items() if not is_finite(network)]
    if unsound:
        raise StuckError(
            f"the training diverged by step {done.step} ({unsound[0]} is not finite): lower the learning rate, such as "
            "with --lr"
        )
    weights = weights_of(method.student)
    done.good, done.good_step = weights, done.step
    return record


def outcome(
    method: Method, monitor: Monitor | None, done: Progression, ended: str, seconds: float, failure: str | None
) -> Outcome:
    """The outcome with the monitor's best student, or with the last good one if the monitor has none."""
    weights, step = done.good, done.good_step
    if monitor and monitor.best is not None:
        weights, step = monitor.best, monitor.rule.best_step
    elif monitor:
        ended += "; the forget class was never within the bound on the hold-out"
    if weights is None:
        raise HopelessError(f"{failure or ended}; there is no student to keep")
    method.student.load_state_dict(weights)
    return Outcome(method.student.freeze().cpu(), step, ended, seconds, failure)


def snapshot(method: Method, monitor: Monitor | None, done: Progression) -> dict[str, Any]:
    """Everything that the rest of the run depends on, in types that a weights-only reader accepts."""
    return {
        "step": done.step,
        "seconds": done.seconds,
        "good": done.good,
        "good_step": done.good_step,
        "monitor": monitor.state_dict() if monitor else None,
        "parts": {name: part_state(part) for name, part in method.parts.items()},
    }


def restore(method: Method, monitor: Monitor | None, checkpoint: Mapping[str, Any]) -> Progression:
    for name, part in method.parts.items():
        restore_part(part, checkpoint["parts"][name])
    if monitor:
        monitor.load_state_dict(checkpoint["monitor"])
    return Progression(checkpoint["step"], checkpoint["seconds"], checkpoint["good"], checkpoint["good_step"])


def part_state(part: Part) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    return part if isinstance(part, Tensor) else part.state_dict()


def restore_part(part: Part, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, Tensor):
        part.data.copy_(state)
    else:
        part.load_state_dict(state)
