"""`synth` from Python: `synth.generate(...)` does what the command does, with the same defaults."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

from synth.basics.progress import Say
from synth.commands.calling import parameters, quiet_elsewhere
from synth.commands.main import generate as command
from synth.commands.main import request_of_run
from synth.commands.recognising import recognise as recognise_command
from synth.commands.recognising import recognition_of
from synth.run.recognition import Recognition
from synth.shards.index import Index

Place = str | PathLike[str]


@quiet_elsewhere
def generate(
    teacher: Place = "teacher.safetensors",
    out: Place = "shards",
    *,
    per_class: int,
    classes: str | Sequence[int] | None = None,
    method: str = "deepinversion",
    preset: str = "tuned",
    views: int = 9,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    address: str = "auto",
    device: str = "auto",
    say: Say = print,
    **options: Any,
) -> Index:
    """Generate images of every class from a checkpoint and publish them as shards.

    Args:
        teacher: the checkpoint to invert.
        out: folder or s3://BUCKET/RUN to publish in.
        per_class: images per class.
        views: mixtures of each image with another one, which the teacher labels too.
        classes: the classes to make, as on the command line or as numbers; None means all.
        address: where the workers run: auto, local, none (this process) or a Ray cluster.
        say: gets lines for a person.
        options: any other option of `synth generate`, by its name with underscores, such as `steps=20`.

    Returns:
        The run's index. `out` now holds its shards.

    Raises:
        UserError: with the cause and the cure; what was published until then stays valid. UsageError is the kind for a
            wrong request.
    """
    values = parameters(
        command,
        {
            "teacher": teacher,
            "out": fspath(out),
            "per_class": per_class,
            "classes": classes,
            "method": method,
            "preset": preset,
            "views": views,
            "seed": seed,
            "resume": resume,
            "overwrite": overwrite,
            "address": address,
            "device": device,
            **options,
        },
    )
    from synth.run.generate import generate_run

    return generate_run(request_of_run(**values), say)


def recognise(
    run: Place,
    *,
    by: Place | Sequence[Place] = (),
    teacher: Place | None = None,
    images: int = 2000,
    device: str = "auto",
    **options: Any,
) -> Recognition:
    """How often networks name a run's images by their class. `print` shows the result as a table.

    Args:
        run: a run of `generate`, which may still grow: a folder or s3://BUCKET/RUN.
        by: checkpoints of other networks, which took no part in the synthesis.
        teacher: the run's own checkpoint, which names changed copies of the images.
        images: how many images of the run to look at.

    Raises:
        UserError: with the cause and the cure. UsageError is the kind for a wrong request.
    """
    given = {"uri": fspath(run), "by": by, "teacher": teacher, "images": images, "device": device, **options}
    values = parameters(recognise_command, given)
    del values["json_file"]
    return recognition_of(**values)
