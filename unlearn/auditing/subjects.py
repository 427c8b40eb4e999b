"""The models of an audit, side by side: original, masked logit, this model, retrained, public, random."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.arithmetic import measured
from synth.checkpoint.card import ModelCard
from synth.checkpoint.class_choice import Classes, as_options
from synth.checkpoint.class_matching import numbered
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint, student_file
from synth.checkpoint.layers import last_layer
from synth.checkpoint.public_start import PublicStart, read_public
from synth.checkpoint.range_choice import Named
from unlearn.auditing.record.record import MASKED, MODEL, ORIGINAL, PUBLIC, RANDOM, RETRAINED, NotRun
from unlearn.methods.masking import check_masked, mask_logits
from unlearn.methods.method import initial_seed
from unlearn.methods.student import forget_classes, fresh_card

Subjects = dict[str, list[Classifier]]  # by name, in the table's order


def gather(
    students: Sequence[Path],
    teacher: Path,
    references: Sequence[Path],
    asked: Classes,
    trusted_architecture: str | None,
    device: str,
    seed: int,
    random_models: int,
    public: Path | None = None,
) -> tuple[list[Subjects], list[NotRun], tuple[int, ...]]:
    """The subjects of each student's audit, frozen and on the device; which subjects are missing and why; and the
    numbers of the forget classes that were asked for.

    All students share the objects of the other models.

    Raises:
        UserError: a file is missing or cannot be read.
        UsageError: the models have different classes or image shapes, lack the forget classes, or cannot be references.
    """
    for student in students:
        check_student(student)
    original = load_checkpoint(teacher, trusted_architecture)
    models = [load_checkpoint(student_file(student), trusted_architecture) for student in students]
    forget = forget_classes(asked, original.card)
    to_retrain = how_to_retrain(forget, original.card)
    retrained = [load_reference(path, to_retrain, trusted_architecture) for path in references]
    for path, other in zip((*students, *references), (*models, *retrained), strict=True):
        check_alike(original, other, teacher, path)
        last_layer(other)  # refuses an architecture without one before any work
    for model in models:
        check_apart(references, retrained, original, model)
    for path, other in zip(references, retrained, strict=True):
        check_retrained(path, other.card, forget, to_retrain)
    known, missing = {ORIGINAL: [measured(original, device)]}, []
    try:
        masked = copy.deepcopy(original)
        mask_logits(masked, forget)
        check_masked(masked, forget)
        known[MASKED] = [masked]
    except UserError as error:
        missing.append(NotRun(MASKED, str(error), "audit a model whose last layer gives its logits and has a bias"))
    if not retrained:
        cure = f"{to_retrain} and name it with --reference"
        why = "no model is given that was retrained without the forget classes"
        missing.append(NotRun(RETRAINED, why, cure))
    beside = {RETRAINED: [measured(m, device) for m in retrained]} if retrained else {}
    if public is not None:
        start = read_public(public, trusted_architecture)
        check_start(start, original, zip(students, models, strict=True))
        beside[PUBLIC] = [measured(as_subject(start, original.card, seed), device)]
    missing += other_starts(models, references, retrained, public, to_retrain)
    random: dict[str, list[Classifier]] = {}
    found = []
    for model in models:
        shape = fresh_card(dataclasses.replace(model.card, training={}))
        if (key := shape.to_json()) not in random:
            seeds = (initial_seed(seed + number, RANDOM) for number in range(random_models))
            fresh = (Classifier.untrained(shape, each) for each in seeds)
            random[key] = [measured(m.freeze(), device) for m in fresh]
        found.append({**known, MODEL: [measured(model, device)], **beside, RANDOM: random[key]})
    return found, missing, forget


def check_start(start: PublicStart, original: Classifier, students: Iterable[tuple[Path, Classifier]]) -> None:
    """Raise UsageError if the public weights are the original's, or not those that a student started from."""
    assert original.digest is not None, "it comes from a file"
    start.refuse_descendant(original.digest, original)
    for path, model in students:
        named = start_of(model.card)
        if named is not None and named != start.model.digest:
            raise UsageError(
                f"{path} started from other weights (sha256 {named[:12]}) than {start.name}: name those with --public"
            )


def as_subject(start: PublicStart, original: ModelCard, seed: int) -> Classifier:
    """The public weights with a random last layer for the original's classes, frozen."""
    theirs = start.model.card
    card = dataclasses.replace(
        original,
        architecture=theirs.architecture,
        width=theirs.width,
        wiring=theirs.wiring,
        mean=theirs.mean,
        std=theirs.std,
        training=theirs.training,
    )
    found = start.network(card, seed).freeze()
    found.digest = start.model.digest
    return found


def start_of(card: ModelCard) -> str | None:
    """The hash of the public weights that a model started from, as its card says; None for random weights."""
    start = card.training.get("start_from")
    return str(start.get("sha256")) if isinstance(start, Mapping) else None


def other_starts(
    models: Sequence[Classifier],
    references: Sequence[Path],
    retrained: Sequence[Classifier],
    public: Path | None,
    to_retrain: str,
) -> list[NotRun]:
    """What the audit lacks because the models did not start from the same weights, or because these are not given."""
    named = {start for model in models if (start := start_of(model.card)) is not None}
    found = []
    if named and public is None:
        why = "the student started from public weights, which are not given"
        found.append(NotRun("what the public weights know by themselves", why, "name them with --public"))
    others = [str(path) for path, other in zip(references, retrained, strict=True) if start_of(other.card) not in named]
    if named and others:
        why = f"{others[0]} did not start from the student's public weights, which know more than random ones"
        cure = f"{to_retrain} with the student's --start-from and name it with --reference"
        found.append(NotRun("a comparison with references of the same start", why, cure))
    return found


def check_student(path: Path) -> None:
    """Raise UserError if there is no student; the cure is about students."""
    if not os.path.exists(path):  # pathlib raises where a name is too long for a file
        make = f"make one with 'unlearn distill --shards ... --forget ... --out {path}'"
        raise UserError(f"there is no student {path}: {make}, or name a checkpoint")
    student_file(path)


def load_reference(path: Path, to_retrain: str, trusted_architecture: str | None) -> Classifier:
    if not os.path.exists(path):
        raise UserError(f"there is no retrained model {path}: {to_retrain.replace('...', f'--out {path}')}")
    return load_checkpoint(path, trusted_architecture)


def how_to_retrain(forget: Sequence[int], card: Named) -> str:
    """The cure for a reference that is missing or wrong."""
    if card.target is not None:
        low, high = card.target.range_of(forget) or (card.target.low, card.target.high)
        return f"train one without the range ('unlearn train --without-range {low:g}:{high:g} ...')"
    class_names = card.class_names
    return f"train one without the classes ('unlearn train {as_options('--without', forget, class_names)} ...')"


def check_apart(
    references: Sequence[Path], retrained: Sequence[Classifier], original: Classifier, model: Classifier
) -> None:
    """Raise UsageError if a reference is the teacher, the student, or another reference: spread and distance would be
    0.
    """
    seen: dict[str | None, Path] = {}
    for path, other in zip(references, retrained, strict=True):
        if other.digest == original.digest:
            raise UsageError(f"{path} is the teacher itself: name a model that was trained without the forget classes")
        if other.digest == model.digest:
            raise UsageError(f"{path} is the audited student itself: name another model, which was retrained")
        if other.digest in seen:
            raise UsageError(
                f"the references {seen[other.digest]} and {path} are the same model, which does not show how much "
                "retrained models differ: name each once, and train others with another --seed"
            )
        seen[other.digest] = path


def check_retrained(path: Path, card: ModelCard, forget: Sequence[int], to_retrain: str) -> None:
    """Raise UsageError if the model's own card says that the model was not trained without the forget classes."""
    training = card.training
    if "teacher_sha256" in training:
        raise UsageError(
            f"{path} was made from a teacher (by {training.get('method', 'unlearning')}), not retrained: a reference "
            f"is trained without the forget classes from the start; {to_retrain}"
        )
    without = training.get("without")
    if isinstance(without, list) and (seen := [c for c in forget if c not in without]):
        raise UsageError(
            f"{path} was trained with images of class {', '.join(card.class_names[c] for c in seen)}, as its own card "
            f"says, and cannot be a reference; {to_retrain}"
        )


def check_alike(original: Classifier, other: Classifier, teacher: Path, path: Path) -> None:
    """Raise UsageError if the two models have other image shapes or classes. Classes that are only numbers fit any
    names.
    """
    ours, theirs = original.card, other.card
    if (ours.input_shape, ours.num_classes) != (theirs.input_shape, theirs.num_classes):
        raise UsageError(
            f"{path} takes images {list(theirs.input_shape)} of {theirs.num_classes} classes, but {teacher} "
            f"{list(ours.input_shape)} of {ours.num_classes}: name models of the same images and classes"
        )
    names, others = ours.class_names, theirs.class_names
    if names != others and not numbered(names) and not numbered(others):
        raise UsageError(
            f"{path} has other classes than {teacher}, or has them in another order: name a model of the same classes"
        )
