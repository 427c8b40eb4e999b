"""Accuracy: which share of the images does the model call by their own class, and what does it call the forget images?

Definition: the share of correctly called images, over the retain classes and over the forget classes, and the confusion
matrix. With several forget classes the verdict uses the forget class that is called most often; the share over all of
them is shown beside it. The target is the accuracy pair of the retrained model, never 0 or 100 %. A model with a masked
logit has a perfect pair, so a good pair proves nothing by itself. Where forget images go is a distribution over the
called classes; its distance to the retrained model's distribution is the total variation, ½ Σ_c |a_c - b_c|, from 0 to
1.
Source: every paper on unlearning.
Cost: one forward pass of the judged images per model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unlearn.auditing.bench import Bench
from unlearn.auditing.images import Source
from unlearn.auditing.record.details import INDEX, NOTHING, SHARES, by_subject, details
from unlearn.auditing.record.intervals import share_interval
from unlearn.auditing.record.record import RETRAINED, Measurement, Reading
from unlearn.evaluation import confusion_matrix

CONFUSION = details(
    confusion=by_subject(
        {"type": "array", "items": {"type": "array", "items": INDEX}},
        "images of a subject's first model, by true class (row) and called class (column)",
    )
)
DETAILS = {
    "accuracy": {"accuracy-retain": NOTHING, "accuracy-forget": CONFUSION, "accuracy-forget-worst": SHARES},
    "divergence": {"confusion-distance": NOTHING},
}
TASKS = ("classification",)
FROM_REAL_FORGET = ("forget accuracy",)


def measure(bench: Bench) -> list[Measurement]:
    source = bench.tested
    forgotten = torch.zeros(bench.num_classes, dtype=torch.bool)
    forgotten[list(bench.forget)] = True
    confusions = confusions_on(source, bench)
    images = bench.is_forgotten(source.judge.labels)
    several = len(bench.forget) > 1
    measurements = [
        Measurement(
            name="accuracy-retain",
            family="accuracy",
            title="retain accuracy",
            unit="%",
            more_left=1,
            resolution=bench.resolution(0.5, int((~images).sum())),
            source=source.kind,
            readings={s: accuracy(matrices, ~forgotten, bench) for s, matrices in confusions.items()},
            key=True,
            quality=True,
        ),
        Measurement(
            name="accuracy-forget",
            family="accuracy",
            title="forget accuracy, all forget classes together" if several else "forget accuracy",
            unit="%",
            more_left=1,
            resolution=bench.resolution(1.0, int(images.sum())),
            source=source.kind,
            readings={s: accuracy(matrices, forgotten, bench) for s, matrices in confusions.items()},
            key=True,
            quality=several,  # the worst class is judged instead
            details={"confusion": {subject: matrices[0].tolist() for subject, matrices in confusions.items()}},
        ),
    ]
    if several:
        measurements.append(worst_class(confusions, bench))
    if RETRAINED in confusions:
        measurements.append(destinations(confusions, forgotten, bench))
    return measurements


def confusions_on(source: Source, bench: Bench) -> dict[str, list[Tensor]]:
    """The confusion matrix (K, K) of each subject's models on the source's judged images."""
    return {
        subject: [
            confusion_matrix(
                source.judge.labels, bench.outputs(model, source.judge).logits.argmax(1), bench.num_classes
            )
            for model in models
        ]
        for subject, models in bench.subjects.items()
    }


def accuracy(confusions: list[Tensor], rows: Tensor, bench: Bench) -> Reading:
    """In %, over the images of the true classes in `rows` (K,), with the sampling error of all images as the
    interval.
    """
    counts = [(int(c.diagonal()[rows].sum()), int(c[rows].sum())) for c in confusions]
    right, seen = map(sum, zip(*counts, strict=True))
    values = tuple((100 * right / seen,) for right, seen in counts)
    return Reading(values, *share_interval(right, seen, bench.settings.confidence))


def worst_class(confusions: dict[str, list[Tensor]], bench: Bench) -> Measurement:
    """Forget accuracy of the forget class that a model calls most often: it must not hide among the others."""
    images = bench.fewest_of(bench.tested.judge.labels)
    return Measurement(
        name="accuracy-forget-worst",
        family="accuracy",
        title="forget accuracy of the class that is called most often",
        unit="%",
        more_left=1,
        resolution=bench.resolution(1.0, images),
        source=bench.tested.kind,
        readings={
            subject: bench.reading([[most_called(c, bench.forget)] for c in matrices], images)
            for subject, matrices in confusions.items()
        },
        key=True,
        details={"images": images},
    )


def most_called(confusion: Tensor, forget: tuple[int, ...]) -> float:
    """The largest accuracy, in %, of the forget classes that have images. confusion: (K, K)."""
    return max(100 * int(confusion[c, c]) / seen for c in forget if (seen := int(confusion[c].sum())))


def destinations(confusions: dict[str, list[Tensor]], forgotten: Tensor, bench: Bench) -> Measurement:
    """How far the classes that forget images are called by are from those of the retrained model; 0 to 1."""
    goes = {subject: [where(c, forgotten) for c in matrices] for subject, matrices in confusions.items()}
    readings = {}
    for subject, shares in goes.items():
        others = [
            [variation_distance(share, other) for other in goes[RETRAINED] if other is not share] for share in shares
        ]
        if all(others):
            readings[subject] = bench.reading(others)
    return Measurement(
        name="confusion-distance",
        family="divergence",
        title="where forget images go, against retrained",
        unit="",
        more_left=0,
        resolution=0.1,
        source=bench.tested.kind,
        readings=readings,
        against_retrained=True,
    )


def where(confusion: Tensor, forgotten: Tensor) -> Tensor:
    """The distribution over called classes (K,) of the forget classes' images."""
    counts = confusion[forgotten].sum(0).double()
    return counts / counts.sum()


def variation_distance(first: Tensor, second: Tensor) -> float:
    """½ Σ_c |a_c - b_c|: 0 for equal distributions, 1 for disjoint ones."""
    return 0.5 * (first - second).abs().sum().item()
