"""`unlearn` from Python: each call does what the command of its name does, with the same defaults.

Every call takes the other options of its command by name, with underscores, such as `steps=500`. Each one raises
UserError with the cause and the cure; UsageError is the kind for a wrong request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from synth.basics.progress import Say
from synth.commands.calling import parameters, quiet_elsewhere
from unlearn.commands import auditing, exporting, models
from unlearn.commands.unlearning import COMMANDS, request_of
from unlearn.evaluation import Evaluation
from unlearn.evaluation_text import evaluation_page
from unlearn.regression import RegressionEvaluation

Place = str | PathLike[str]
Classes = int | str | Sequence[int | str]


@dataclass(frozen=True)
class Evaluations:
    """How well models do on the same test images. As text it is the page of `unlearn evaluate`."""

    models: (
        Mapping[str, Evaluation] | Mapping[str, RegressionEvaluation]
    )  # by what they are, such as original or student; accuracies in per cent
    class_names: Sequence[str]
    forget: Sequence[int]
    name: str  # of the model that was to be evaluated, among `models`

    def __str__(self) -> str:
        return evaluation_page(self.models, self.class_names, self.forget, self.name)


@quiet_elsewhere
def import_checkpoint(
    file: Place | None, out: Place, *, overwrite: bool = False, say: Say = print, **options: Any
) -> Path:
    """Turn a trained network into a checkpoint, and return the checkpoint's path. The command is `unlearn import`.

    Args:
        file: the .pt, .pth or .safetensors file, of which only weights are read; None for `weights="timm:NAME"` and the
            like.
        out: the checkpoint to write.
        options: such as `arch="resnet18", input_shape="3,224,224", classes="cat,dog", mean="0.5", std="0.5"`.
    """
    given = {"file": file, "out": out, "overwrite": overwrite, **options}
    models.import_model(say, **parameters(models.import_, given))
    return Path(out)


@quiet_elsewhere
def export(
    student: Place,
    out: Place,
    *,
    like: Place | None = None,
    overwrite: bool = False,
    say: Say = print,
    **options: Any,
) -> Path:
    """Write a student for the program that used the original, and return the path of what was written.

    Args:
        student: a checkpoint or a run's folder.
        out: a file ending in .pt, .pth, .safetensors, .pt2 or .onnx, or a folder for the Hugging Face Hub.
        like: the file that the original was imported from, whose entries, keys and number types the student gets.
    """
    given = {"student": student, "out": out, "like": like, "overwrite": overwrite, **options}
    exporting.export_student(say, **parameters(exporting.export, given))
    return Path(out)


@quiet_elsewhere
def train(
    arch: str | None,
    data: Place,
    out: Place,
    *,
    without: Classes = (),
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    say: Say = print,
    **options: Any,
) -> Path:
    """Train a teacher on real images, and return its checkpoint's path.

    Args:
        arch: the name of an architecture, or module:function; None for that of `start_from`, a checkpoint of public
            weights.
        data: a data set's name, or a folder with train/ and test/.
        without: classes to leave out, which makes the retrained reference.
    """
    given = {"arch": arch, "data": fspath(data), "out": out, "without": without, "seed": seed, "overwrite": overwrite}
    models.train_model(say, say, **parameters(models.train, {**given, "device": device, **options}))
    return Path(out)


def distill(
    shards: Place | Sequence[Place],
    forget: Classes,
    out: Place,
    *,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    say: Say = print,
    **options: Any,
) -> Path:
    """Train a student on a run of `synth.generate` without the forget classes, and return the student's path.

    Args:
        shards: the run: a folder or s3://BUCKET/RUN; or several runs of one teacher.
        forget: the classes to forget; () with `forget_points`, a folder of single images.
        out: folder for the student, its metrics and its settings.
    """
    chosen = {"seed": seed, "resume": resume, "overwrite": overwrite, "device": device}
    places = [shards] if isinstance(shards, str | PathLike) else shards
    return unlearn("distill", forget, out, shards=[fspath(place) for place in places], say=say, **chosen, **options)


@quiet_elsewhere
def unlearn(method: str, forget: Classes, out: Place, *, say: Say = print, **options: Any) -> Path:
    """Run any unlearning method, and return the student's path.

    Args:
        method: the name of its command: distill, gkt, ispf, adaptive, emmn, edit, or a plug-in's.
        forget: the classes to forget.
        out: folder for the student, its metrics and its settings.
        options: most methods take `teacher` and `shards`.

    Raises:
        UsageError: there is no such method, or an option is wrong.
        HopelessError: the method broke off. The last good student is written first.
    """
    from synth.basics.errors import UsageError

    if method not in COMMANDS:
        raise UsageError(f"there is no method {method}: it is one of {', '.join(COMMANDS)}")
    from synth.checkpoint.file import student_file
    from unlearn.run import rounds

    values = parameters(COMMANDS[method], {"forget": forget, "out": out, **options})
    rounds.unlearn(request_of(method, values), say)
    return student_file(Path(out))


@quiet_elsewhere
def evaluate(
    model: Place,
    data: Place,
    forget: Classes,
    *,
    teacher: Place | None = None,
    reference: Place | None = None,
    device: str = "auto",
    say: Say = print,
    **options: Any,
) -> Evaluations:
    """The accuracy of a model, and of others beside it, on real test images. `print` shows the result as a page.

    Args:
        model: a checkpoint or a run's folder.
        data: a data set's name, or a folder with test/.
        forget: the classes to forget.
        teacher: the original model, for comparison.
        reference: a model retrained without the classes, for comparison.
    """
    named = {"model": model, "data": fspath(data), "forget": forget, "teacher": teacher, "reference": reference}
    values = parameters(models.evaluate, {**named, "device": device, **options})
    del values["as_json"], values["out"]
    found, name = models.evaluations_of(say, **values)
    return Evaluations(*found, name)


@quiet_elsewhere
def audit(
    student: Place,
    teacher: Place,
    forget: Classes,
    out: Place,
    *,
    references: Sequence[Place] = (),
    shards: Place | None = None,
    data: Place | None = None,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    say: Say = print,
    **options: Any,
) -> dict[str, Any]:
    """Measure what a student still knows of the classes.

    Args:
        student: a checkpoint or a run's folder.
        teacher: the original model.
        references: models that were retrained without the classes.
        shards: a run of `synth.generate` to relearn from; without `data` the audit judges on it too.
        data: a data set's name, or a folder with train/ and test/.
        out: folder for audit.json and pictures.

    Returns:
        The record that `out/audit.json` holds: `record["verdict"]` is the verdict, and
        `unlearn.auditing.text.audit_text(record)` the whole as text.
    """
    places = {"students": [student], "teacher": teacher, "forget": forget, "references": references, "out": out}
    images = {"shards": None if shards is None else fspath(shards), "data": None if data is None else fspath(data)}
    chosen = {"seed": seed, "overwrite": overwrite, "device": device}
    values = parameters(auditing.audit, {**places, **images, **chosen, **options})
    if (points := values.pop("forget_points")) is not None:
        from unlearn.auditing.points.audit_points import audit_points

        return audit_points(auditing.requests_of_points(say, points, **values)[0], say)
    from unlearn.auditing.audit import audit_each

    return audit_each(auditing.requests_of_audit(say, **values), say)[0]
