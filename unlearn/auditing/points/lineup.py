"""The models of an audit of points side by side, the points in groups, and other images that are like them.

The known models are the original, retrained models, random ones, and `relabelled`: the original, trained on the points
with wrong labels until it says none of theirs. It is to points what a masked logit is to classes: the labels are gone,
and nothing is as if the points had never been there.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.basics.errors import UsageError
from synth.checkpoint.arithmetic import measured
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier, predict, to_unit
from synth.checkpoint.file import load_checkpoint, student_file
from unlearn.auditing.record.record import MODEL, ORIGINAL, RANDOM, RETRAINED
from unlearn.auditing.subjects import check_alike, check_apart, check_student
from unlearn.data import LabelledImages
from unlearn.methods.method import initial_seed
from unlearn.points import UNKNOWN, Points

RELABELLED = "relabelled"
LINEUP = (ORIGINAL, RELABELLED, MODEL, RETRAINED, RANDOM)
MOST_STEPS, LR = 300, 1e-3  # of the relabelled model
PIXELS_AT_ONCE = 400_000  # of the points that it learns: 43 of 96 px, 7 of 224 px
LIKE_EACH = 20  # test images that stand beside a point
POPULATION = 1000  # further test images, for RMIA
HOW = "train one with 'unlearn train --without-points FOLDER ...'"

Lineup = Mapping[str, Sequence[Classifier]]


def line_up(
    student: Path, teacher: Path, references: Sequence[Path], points: Points, trusted: str | None, seed: int
) -> tuple[dict[str, list[Classifier]], list[str]]:
    """The models by subject, frozen, and what is doubtful about them.

    Raises:
        UserError: a file is missing or cannot be read.
        UsageError: the models do not belong together, or a reference was trained with the points.
    """
    check_student(student)
    original, model = (load_checkpoint(path, trusted) for path in (teacher, student_file(student)))
    retrained = [load_checkpoint(path, trusted) for path in references]
    for path, other in zip((student, *references), (model, *retrained), strict=True):
        check_alike(original, other, teacher, path)
    check_apart(references, retrained, original, model)
    doubts = [
        doubt
        for path, other in zip(references, retrained, strict=True)
        if (doubt := check_reference(path, other.card, points))
    ]
    shape = dataclasses.replace(model.card, training={})
    found = {
        ORIGINAL: [original],
        RELABELLED: [relabel(original, points, seed)],
        MODEL: [model],
        **({RETRAINED: retrained} if retrained else {}),
        RANDOM: [Classifier.untrained(shape, initial_seed(seed, RANDOM))],
    }
    return {name: [measured(each.freeze()) for each in models] for name, models in found.items()}, doubts


def check_reference(path: Path, card: ModelCard, points: Points) -> str | None:
    """A doubt about a reference. Raises UsageError if its card says that it saw the points or was unlearned."""
    if "teacher_sha256" in card.training:
        raise UsageError(f"{path} was made from a teacher, not retrained: {HOW}")
    noted = card.training.get("points")
    noted = noted if isinstance(noted, Mapping) else {}
    if noted.get("how") == "with" and noted.get("sha256") == points.sha256:
        raise UsageError(f"{path} was trained with the points, as its own card says, and cannot be a reference: {HOW}")
    if noted.get("how") == "without" and noted.get("sha256") == points.sha256:
        return None
    return f"the card of {path} does not say that it was trained without these points"


def relabel(original: Classifier, points: Points, seed: int) -> Classifier:
    """The original, trained on the points with random wrong labels until it says none of the points' own."""
    labels = labels_of(points, original)
    rng = torch.Generator().manual_seed(seed)
    classes = original.card.num_classes
    wrong = (labels + torch.randint(1, classes, labels.shape, generator=rng)) % classes
    model = copy.deepcopy(original).eval().requires_grad_(True)
    optimiser = torch.optim.Adam(model.parameters(), lr=LR)
    x_unit = to_unit(points.images)
    parts = torch.arange(len(labels)).split(max(1, PIXELS_AT_ONCE // x_unit[0, 0].numel()))  # for the memory
    for _ in range(MOST_STEPS):
        optimiser.zero_grad(set_to_none=True)
        says_own = False
        for rows in parts:
            logits = model(x_unit[rows])
            says_own |= bool((logits.argmax(1) == labels[rows]).any())
            (F.cross_entropy(logits, wrong[rows]) * (len(rows) / len(labels))).backward()
        if not says_own:
            break
        optimiser.step()
    return model


def labels_of(points: Points, original: Classifier) -> Tensor:
    """The points' labels (P,); where one is not known, what the original calls the point."""
    return torch.where(points.labels == UNKNOWN, predict(original, points.images).argmax(1), points.labels)


@dataclass(frozen=True)
class Groups:
    """The points by what retraining would change, as masks (P,).

    Attributes:
        memorised: the original says the point's label, and most retrained models do not.
        typical: at least half of the retrained models say it, too. The right answer is no change.
        called: what most retrained models call the point, (P,).
    """

    memorised: Tensor
    typical: Tensor
    called: Tensor

    @property
    def by_name(self) -> dict[str, Tensor]:
        return {"memorised": self.memorised, "typical": self.typical}


def group(labels: Tensor, original: Tensor, retrained: Tensor) -> Groups:
    """The groups of P points.

    Args:
        labels: (P,).
        original: what the original calls the points, (P,).
        retrained: what R retrained models call them, (R, P).
    """
    share = (retrained == labels).double().mean(0)
    says = original == labels
    return Groups(memorised=says & (share < 0.5), typical=share >= 0.5, called=retrained.mode(0).values)


@dataclass(frozen=True)
class Beside:
    """Test images that stand beside the points: `of` (N,) is each one's point, `labels` (N,) the label of that point.

    A point's images have the class that retrained models call the point, and get the point's label, right or wrong. So
    they are what the point is, except that no model saw them.
    """

    images: LabelledImages
    labels: Tensor
    of: Tensor


def stand_beside(
    test: LabelledImages, labels: Tensor, called: Tensor, rng: torch.Generator
) -> tuple[Beside, LabelledImages]:
    """The images beside the points, and the others: a population for RMIA, with their own labels."""
    order = torch.randperm(len(test), generator=rng)
    half = len(order) // 2
    pool, rest = order[:half], order[half:]
    rows, of = [], []
    for point, name in enumerate(called.tolist()):
        alike = pool[test.labels[pool] == name]
        rows.append(alike[torch.randperm(len(alike), generator=rng)[:LIKE_EACH]])
        of.append(torch.full((len(rows[-1]),), point))
    chosen, points = torch.cat(rows), torch.cat(of)
    return Beside(test.select(chosen), labels[points], points), test.select(rest[:POPULATION])


Answer = Callable[[Classifier, Tensor], Tensor]  # logits (N, K) of images
