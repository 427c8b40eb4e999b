"""What a model that never saw them would answer to the points that a teacher memorised: the student learns it.

A student that keeps away from the points still learns from the teacher, on images that resemble none of them, to be
surer of a memorised label than a model that never saw the point: its membership shows. But the student calls most of
these points by another class than their label, so it names them itself, and its other answers tell how likely the label
should be. With y0 the label of such a point x0, and c the class other than y0 that the student thinks likeliest,

    log p(y0 | x0) = m[c, y0] + d

    m[c, k]   the median of log p(k | x) over the synthetic images that the student calls c
    d         how much surer the student is on real images than on synthetic ones: the median, over the points that it
              calls by their label, of the mean over k != c of log p(k | x0) - m[c, k]; without such points the same
              over the other points, over k != c, y0

The other classes keep their shares among each other. A label that is less likely already stays so. Points that the
student calls by their label are typical: a model that never saw them does so, too, and they are left alone.

The student's answers change while it learns, so the targets are computed anew now and then (`Answers.renew`), until
its learning rate is near 0. We know of no publication of this rule. What it does to an audit is in
docs/results/points.md.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.basics.progress import counted
from synth.checkpoint.classifier import Classifier, predict, to_unit
from unlearn.methods import losses
from unlearn.points import UNKNOWN, Points

FROM = 0.4  # the share of the steps after which the points join in
RENEWALS = 12  # of the targets, evenly over the other steps
SHARE = 1 / 8  # points beside the views of a batch
TEMPERATURE = 4.0  # so that the loss sees small probabilities
IMAGES = 2000  # synthetic ones, from which the medians are taken
LEAST = 1e-9  # of a probability, before its logarithm


class Answers:
    """The memorised points and their targets. It has none until it is renewed.

    Args:
        points: to forget; one without a label counts as labelled by the teacher.
        teacher: frozen; None if it is not at hand. Then points without a label are left alone.
        device: of the student.
    """

    def __init__(self, points: Points, teacher: Classifier | None, device: str) -> None:
        labels = points.labels.clone()
        unknown = labels == UNKNOWN
        if teacher is not None and unknown.any():
            labels[unknown] = predict(teacher, points.images[unknown]).argmax(1).cpu()
        self.images, self.labels = points.images[labels != UNKNOWN], labels[labels != UNKNOWN]
        self.memorised = torch.zeros(len(self.labels), dtype=torch.bool)
        self.targets = torch.empty(0)  # (P, K), of which the rows of memorised points count
        self.device = device

    def renew(self, student: Classifier, synthetic: Tensor) -> None:
        """Compute the targets from the student's answers to the points and to synthetic images uint8 (N, C, H, W)."""
        typical_of_class, called = medians(predict(student, synthetic).cpu())
        logits = predict(student, self.images).cpu()
        self.memorised |= logits.argmax(1) != self.labels
        self.targets = corrected(logits, self.labels, self.memorised, typical_of_class, called)

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor] | None:
        """Some of the memorised points in [0, 1], (B, C, H, W), and their targets (B, K); None if there are none."""
        rows = self.memorised.nonzero()[:, 0]
        if not len(rows):
            return None
        rows = rows[torch.randint(len(rows), (count,), generator=rng)]
        return to_unit(self.images[rows].to(self.device)), self.targets[rows].to(self.device)

    @property
    def words(self) -> str:
        """How many points were answered, in one line."""
        memorised, labelled = int(self.memorised.sum()), counted(len(self.labels), "labelled point")
        if not memorised:
            return f"the student calls all of {labelled} by their label: none got another answer"
        return (
            f"{memorised:,} of {labelled} were taken for memorised: the student learnt what a model that never saw "
            "them would answer"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"memorised": self.memorised, "targets": self.targets}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memorised, self.targets = state["memorised"], state["targets"]


def renewed_at(step: int, steps: int) -> bool:
    """Whether the targets are computed anew before this step, counted from 0."""
    first = int(FROM * steps)
    return step >= first and (step - first) % max(1, (steps - first) // RENEWALS) == 0


def medians(logits: Tensor) -> tuple[Tensor, Tensor]:
    """m[c, k], (K, K), from the student's logits (N, K) on synthetic images, and which classes c have images, (K,)."""
    log_p, classes = logits.log_softmax(1), logits.argmax(1)
    num_classes = logits.shape[1]
    called = torch.bincount(classes, minlength=num_classes) > 0
    found = torch.zeros(num_classes, num_classes)
    for c in called.nonzero()[:, 0]:
        found[c] = log_p[classes == c].median(0).values
    return found, called


def corrected(logits: Tensor, labels: Tensor, memorised: Tensor, medians: Tensor, called: Tensor) -> Tensor:
    """The probabilities (P, K) of the points with these logits (P, K); those of memorised points (P,) are corrected.

    Args:
        labels: of the points (P,).
        medians: m[c, k].
        called: the classes (K,) that have medians. The points of others keep their answers.
    """
    log_p, of_label = logits.log_softmax(1), F.one_hot(labels, logits.shape[1]).bool()
    of_label &= memorised[:, None]
    classes = logits.masked_fill(of_label, -torch.inf).argmax(1)
    others = ~(of_label | F.one_hot(classes, logits.shape[1]).bool())
    known = called[classes]
    offsets = ((log_p - medians[classes]) * others).sum(1) / others.sum(1).clamp_min(1)
    typical = known & ~memorised
    of_real = offsets[typical if typical.any() else known]
    if not len(of_real):
        return log_p.exp()
    expected = (medians[classes] + of_real.median()).gather(1, labels[:, None])[:, 0].exp()
    p = log_p.exp()
    own = p.gather(1, labels[:, None])[:, 0]
    new = torch.where(memorised & known, torch.minimum(expected, own), own)
    p = p * ((1 - new) / (1 - own).clamp_min(LEAST))[:, None]
    return p.scatter(1, labels[:, None], new[:, None])


def divergence(targets: Tensor, logits: Tensor) -> Tensor:
    """τ² mean KL of the targets (B, K), given at temperature 1, from the student's logits (B, K): a scalar in nats."""
    softened = (targets.clamp_min(LEAST).log() / TEMPERATURE).softmax(1)
    return losses.divergence(softened, logits, TEMPERATURE)
