"""The models of an audit side by side: original | masked logit | this model | retrained | random."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from synth.errors import UsageError, UserError
from synth.teacher import Classifier, load_checkpoint
from unlearn.audit.record import MASKED, MODEL, ORIGINAL, RANDOM, RETRAINED, NotRun
from unlearn.folder import STUDENT
from unlearn.methods.baseline import last_layer, mask_logits
from unlearn.methods.distill import check_forget


def student_file(path: Path) -> Path:
    """The checkpoint that a user names, directly or by its run's folder."""
    return path / STUDENT if path.is_dir() else path


def gather(
    student: Path,
    teacher: Path,
    references: Sequence[Path],
    forget: tuple[int, ...],
    trusted_architecture: str | None,
    device: str,
    seed: int,
    random_models: int,
) -> tuple[dict[str, list[Classifier]], list[NotRun]]:
    """The models, frozen and on the device, and which ones are missing and why.

    Raises:
        UsageError: models of different classes or image shapes, or forget classes that they don't have.
    """
    original = load_checkpoint(teacher, trusted_architecture)
    model = load_checkpoint(student_file(student), trusted_architecture)
    retrained = [load_checkpoint(path, trusted_architecture) for path in references]
    check_forget(forget, original.card)
    for path, other in zip((student, *references), (model, *retrained), strict=True):
        check_alike(original, other, teacher, path)
        if other is not model and other.digest == original.digest:
            raise UsageError(f"{path} is the teacher itself: a reference is trained without the forget classes")
        last_layer(other)  # an architecture without one is refused before any work
    found, missing = {ORIGINAL: [original]}, []
    try:
        masked = copy.deepcopy(original)
        mask_logits(masked, forget)
        found[MASKED] = [masked]
    except UserError as error:
        missing.append(NotRun(MASKED, str(error), "audit a model whose last layer has a bias"))
    found[MODEL] = [model]
    if retrained:
        found[RETRAINED] = retrained
    else:
        cure = f"train one without the classes ('unlearn train --without {','.join(map(str, forget))}') and name it with --reference"
        missing.append(NotRun(RETRAINED, "no model that was retrained without the forget classes is given", cure))
    found[RANDOM] = [Classifier.untrained(model.card, seed + number).freeze() for number in range(random_models)]
    return {name: [m.to(device) for m in models] for name, models in found.items()}, missing


def check_alike(original: Classifier, other: Classifier, teacher: Path, path: Path) -> None:
    ours, theirs = original.card, other.card
    if (ours.input_shape, ours.num_classes) != (theirs.input_shape, theirs.num_classes):
        raise UsageError(
            f"{path} takes images {list(theirs.input_shape)} of {theirs.num_classes} classes, but {teacher} "
            f"{list(ours.input_shape)} of {ours.num_classes}: they can't be compared"
        )
