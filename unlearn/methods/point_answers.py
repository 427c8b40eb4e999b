"""How likely a model that never saw them finds the labels of points that a teacher memorised: the student learns it.

A student that keeps away from the points still learns from the teacher, on images that resemble none of them, to be
surer of a memorised label than a model that never saw the point: its membership shows. But the student calls most of
these points by another class than their label, so it names them itself, and its other answers tell how likely such a
label should be. With y0 the label of such a point x0, c the class other than y0 that the student S thinks likeliest,
and p_S its answers, the target is

    log p(y0 | x0) = log p_S(y0 | x0) - e,      e = median over these points of (log p_S(y0 | x0) - m[c, y0]) - d

    m[c, k]   the median of log p_S(k | x) over the synthetic images that S calls c
    d         how much surer S is on real images than on synthetic ones: the median, over the points that it calls by
              their label, of the mean over k != c of log p_S(k | x0) - m[c, k]; without such points the same over the
              other points, over k != c, y0

All labels become less likely by one factor, because points differ in how much they resemble their label, seen or not.
If e is negative, nothing changes. What else a point could be the student does not learn from itself: a target for the
other classes, from its own answers to the point or to views of it, made it repeat its early mistakes. Points that S
calls by their label are typical: a model that never saw them does so, too, and they are left alone.

Photographs have other views, mirrored, shifted and cropped (`heard_views`). Layers that memorised a point hold it as it
is more than other views of it, and a typical one in all of them. So the teacher, if it is at hand, says of a
photograph's views what else it could be: how the other classes share the rest is its mean answer without the label, and
without the classes that are to be forgotten.

A student errs while its learning rate is high, so which points it does not call by their label is decided by its mean
answer over some of the steps before the points join in (`Answers.listen`), of a photograph to another view each time.
Later its answers still change, so the targets are computed anew now and then (`Answers.renew`), until its learning rate
is near 0. We know of no publication of this rule. What it does to an audit is in docs/results/points.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.basics.progress import counted
from synth.checkpoint.classifier import Classifier, predict, to_unit
from unlearn.methods import losses
from unlearn.methods.fresh_views import fresh_views
from unlearn.points import UNKNOWN, Points

LISTEN_FROM = 0.3  # the share of the steps after which the student answers the points
ANSWERS = 20  # of which the mean decides what is memorised
HEARD_CROP = 0.75  # the smallest share of a photograph's area that it is asked about
JOIN_FROM = 0.4  # the share of the steps after which it learns from the points
RENEWALS = 12  # of the targets, evenly over the steps after that
VIEWS = 20  # of each photograph, in which the teacher says what else it could be
SHARE = 1 / 16  # points beside the views of a batch
TEMPERATURE = 4.0  # so that the loss sees small probabilities
IMAGES = 2000  # synthetic ones, from which the medians are taken
LEAST = 1e-9  # of a probability, before its logarithm


class Answered(NamedTuple):
    """B points in [0, 1], (B, C, H, W), their labels (B,), and the probabilities (B,) that these should have.

    others: how the other classes should share the rest, (B, K), 0 for the label; None if that is not known.
    """

    images: Tensor
    labels: Tensor
    targets: Tensor
    others: Tensor | None = None


class Answers:
    """The points that the student takes for memorised, and their targets. It has none until it is renewed.

    Args:
        points: to forget; one without a label counts as labelled by the teacher.
        teacher: frozen; None if it is not at hand. Then points without a label are left alone, and of photographs, too,
            only the label's probability is learnt.
        device: of the student.
        flip: whether views may be mirrored.
        forget: classes that are to be forgotten, too: no point is said to be one of them.
    """

    def __init__(
        self,
        points: Points,
        teacher: Classifier | None,
        device: str,
        flip: bool = False,
        forget: tuple[int, ...] = (),
    ) -> None:
        labels = points.labels.clone()
        unknown = labels == UNKNOWN
        if teacher is not None and unknown.any():
            labels[unknown] = predict(teacher, points.images[unknown]).argmax(1)
        self.by_teacher = 0 if teacher is None else int(unknown.sum())
        self.images, self.labels = points.images[labels != UNKNOWN], labels[labels != UNKNOWN]
        self.heard = torch.zeros(len(self.labels), len(points.class_names))  # the sum of the student's answers
        self.memorised = torch.zeros(len(self.labels), dtype=torch.bool)
        self.targets = torch.empty(0)  # (P,): the labels' probabilities, of which those of memorised points count
        self.others: Tensor | None = None  # (P, K): how the other classes share the rest, if it is known
        several = len(points.class_names) - len(forget) > 1  # a class is left beside any label
        if teacher is not None and has_views(self.images) and len(self.labels) and several:
            views = (heard_views(self.images, flip, number) for number in range(VIEWS))
            self.others = others(teacher, views, self.labels, forget)
        self.device = device

    def __len__(self) -> int:
        return len(self.labels)

    def listen(self, student: Classifier, views: Tensor) -> None:
        """Take the student's answers to views of the points, by which it is decided which of them are memorised.

        Args:
            views: uint8 (P, C, H, W), one of each point, in the order of `images`.
        """
        self.heard += predict(student, views).softmax(1)
        self.memorised = self.heard.argmax(1) != self.labels

    def renew(self, student: Classifier, synthetic: Tensor) -> None:
        """Compute the targets from the student's answers to the points and to synthetic images uint8 (N, C, H, W)."""
        typical_of_class, called = medians(predict(student, synthetic))
        logits = predict(student, self.images)
        self.targets = shares(logits, self.labels, self.memorised, typical_of_class, called)

    def draw(self, count: int, rng: torch.Generator) -> Answered | None:
        """Some of the memorised points, with their targets; None if there are none."""
        rows = self.memorised.nonzero()[:, 0]
        if not len(self.targets) or not len(rows):
            return None
        rows = rows[torch.randint(len(rows), (count,), generator=rng)]
        images, labels, targets = (values[rows].to(self.device) for values in (self.images, self.labels, self.targets))
        known = None if self.others is None else self.others[rows].to(self.device)
        return Answered(to_unit(images), labels, targets, known)

    @property
    def words(self) -> str:
        """How many points were answered, in one line."""
        memorised, points = int(self.memorised.sum()), counted(len(self.labels), "point")
        points += f" ({self.by_teacher:,} with the teacher's label)" if self.by_teacher else ""
        if not memorised:
            return f"the student calls all of {points} by their label: it took none for memorised"
        return (
            f"{memorised:,} of {points} were taken for memorised: the student learnt how unlikely their labels are "
            "to a model that never saw them"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"heard": self.heard, "memorised": self.memorised, "targets": self.targets}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.heard, self.memorised, self.targets = state["heard"], state["memorised"], state["targets"]


def has_views(images: Tensor) -> bool:
    """Whether the images (N, C, H, W) are in colour: then they are taken for photographs."""
    return images.shape[1] == 3


def heard_views(images: Tensor, flip: bool, seed: int) -> Tensor:
    """Views of points uint8 (P, C, H, W), by which it is decided what is memorised, and what else it is: of colour
    images crops, shifted, and mirrored if `flip`; grey ones as they are. A seed gives the same views again.
    """
    if not has_views(images):
        return images
    return fresh_views(images, 1.0, HEARD_CROP, 0, flip, torch.Generator().manual_seed(seed))


def listened_at(step: int, steps: int) -> bool:
    """Whether the student answers the points before this step, counted from 0. It does so once at least."""
    return is_one_of(ANSWERS, step, int(LISTEN_FROM * steps), int(JOIN_FROM * steps) + 1)


def renewed_at(step: int, steps: int) -> bool:
    """Whether the targets are computed anew before this step, counted from 0."""
    return is_one_of(RENEWALS, step, int(JOIN_FROM * steps), steps)


def is_one_of(count: int, step: int, first: int, end: int) -> bool:
    """Whether the step is one of about `count` steps from `first` on, evenly before `end`."""
    return first <= step < end and (step - first) % max(1, (end - first) // count) == 0


def medians(logits: Tensor) -> tuple[Tensor, Tensor]:
    """m[c, k], (K, K), from the student's logits (N, K) on synthetic images, and which classes c have images, (K,)."""
    log_p, classes = logits.log_softmax(1), logits.argmax(1)
    num_classes = logits.shape[1]
    called = torch.bincount(classes, minlength=num_classes) > 0
    found = torch.zeros(num_classes, num_classes)
    for c in called.nonzero()[:, 0]:
        found[c] = log_p[classes == c].median(0).values
    return found, called


def shares(logits: Tensor, labels: Tensor, memorised: Tensor, medians: Tensor, called: Tensor) -> Tensor:
    """The probability (P,) that each point's label should have, from the student's logits (P, K) on the points.

    Args:
        labels: of the points (P,).
        memorised: the points (P,) whose labels are to become less likely; the others keep their probability.
        medians: m[c, k].
        called: the classes (K,) that have medians. The points of others keep their probability.
    """
    log_p, of_label = logits.log_softmax(1), F.one_hot(labels, logits.shape[1]).bool()
    of_label &= memorised[:, None]
    classes = logits.masked_fill(of_label, -torch.inf).argmax(1)
    others = ~(of_label | F.one_hot(classes, logits.shape[1]).bool())
    surer = log_p - medians[classes]
    known = called[classes]
    typical, rows = known & ~memorised, known & memorised
    found = log_p.gather(1, labels[:, None])[:, 0]
    if rows.any():
        of_image = (surer * others).sum(1) / others.sum(1).clamp_min(1)
        usual = of_image[typical if typical.any() else rows].median()
        excess = surer.gather(1, labels[:, None])[rows, 0].median() - usual
        found[rows] -= excess.clamp_min(0)
    return found.exp()


def others(model: Classifier, views: Iterable[Tensor], labels: Tensor, forget: tuple[int, ...] = ()) -> Tensor:
    """How the classes other than their labels (P,) share the rest of the points' answers, (P, K), 0 for the label.

    Args:
        views: each uint8 (P, C, H, W), one of each point. The model's mean answer to them decides.
        forget: classes that have no share.
    """
    heard = sum(predict(model, view).softmax(1) for view in views)
    assert isinstance(heard, Tensor), "there are views"
    heard = heard.clamp_min(LEAST).scatter(1, labels[:, None], 0)
    heard[:, list(forget)] = 0
    return heard / heard.sum(1, keepdim=True)


def divergence(answered: Answered, logits: Tensor) -> Tensor:
    """τ² mean KL of the labels' probabilities, given at temperature 1, from the student's; a scalar in nats. If it is
    known how the other classes share the rest, the same divergence of these shares is added.

    Args:
        logits: the student's (B, K) on the points.
    """
    of_label = F.one_hot(answered.labels, logits.shape[1]).bool()
    rest = logits.masked_fill(of_label, torch.finfo(logits.dtype).min)
    pairs = torch.stack([logits.gather(1, answered.labels[:, None])[:, 0], rest.logsumexp(1)], 1)
    p = answered.targets.clamp(LEAST, 1 - LEAST)
    loss = losses.divergence(softened(torch.stack([p, 1 - p], 1)), pairs, TEMPERATURE)
    if answered.others is not None:
        loss = loss + losses.divergence(softened(answered.others), rest, TEMPERATURE)
    return loss


def softened(probabilities: Tensor) -> Tensor:
    """Distributions (N, K), given at temperature 1, at that of the loss."""
    return (probabilities.log() / TEMPERATURE).softmax(1)
