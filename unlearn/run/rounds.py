"""Distillation in several rounds: from the second on, synth makes images against the student of the round before.

Each round adds a run of shards like the first one, of the classes to retain only, on which teacher and student disagree
(Adaptive DeepInversion, Yin et al. 2020), and trains a student from random weights on all runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from synth import methods
from synth.basics.errors import UsageError
from synth.checkpoint.file import student_file
from synth.making.gate import QualityGate
from synth.methods.presets import methods_own
from synth.run.generate import Request as SynthRequest
from synth.run.generate import generate_run
from synth.shards.index import RunCard
from unlearn.methods.student import forget_classes, teacher_card
from unlearn.run import carry_out
from unlearn.run.opening import open_runs
from unlearn.run.request import Request


def unlearn(request: Request, say: Callable[[str], None]) -> None:
    """Carry the request out, in as many rounds as it says. `say` gets lines for a person.

    What the rounds before the last one make lies beside the last one's folder OUT, in OUT-rounds: student-1, shards-2,
    student-2 and so on. With `resume`, what is complete is kept.

    Raises:
        UserError: with the cause and the cure.
        HopelessError: a round broke off.
    """
    if request.rounds == 1:
        carry_out.unlearn(request, say)
        return
    if request.teacher is None:
        raise UsageError("--rounds needs the teacher, which makes the further images: name its checkpoint: --teacher")
    between, places = request.out.with_name(f"{request.out.name}-rounds"), list(request.places)
    asked = dataclasses.replace(request, log_to=())
    for number in range(1, request.rounds):
        say(f"round {number} of {request.rounds}")
        student = between / f"student-{number}"
        carry_out.unlearn(dataclasses.replace(asked, shards=places, out=student), say)
        asked = dataclasses.replace(asked, follow_timeout=None)  # the runs are complete by now
        shards = between / f"shards-{number + 1}"
        generate_run(against(asked, open_runs(request).card, student_file(student), number, shards), say)
        places = [*places, str(shards)]
    say(f"round {request.rounds} of {request.rounds}")
    carry_out.unlearn(dataclasses.replace(asked, shards=places, log_to=request.log_to), say)


def against(request: Request, run: RunCard, student: Path, number: int, out: Path) -> SynthRequest:
    """A run like the first one, with another seed, of the classes to retain, and against the student."""
    assert request.teacher is not None
    settings = methods.find(run.method).SETTINGS(**methods_own(run.settings))
    gate = run.settings.get("quality_gate")
    forget, plan = forget_classes(request.forget, teacher_card(run)), run.plan
    return SynthRequest(
        teacher=request.teacher,
        trusted_architecture=request.trusted_architecture,
        method=run.method,
        settings=settings,
        preset="of the first round",
        gate=QualityGate(**gate) if gate else None,
        classes=tuple(c for c in plan.classes if c not in forget),
        per_class=plan.per_class,
        shard_size=plan.shard_size,
        views=plan.views,
        view_crop=plan.view_crop,
        image_format=plan.image_format,
        seed=plan.seed + number,
        out=str(out),
        resume=request.resume,
        overwrite=request.overwrite,
        address=request.address,
        workers=None,
        threads=torch.get_num_threads(),
        gpus_per_worker=None,
        device=request.device,
        student=student,
    )
