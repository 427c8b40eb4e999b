"""Last-layer transplant: does the original's last layer find the forgotten class in this model's features?

direct     the original's last layer is put on this model's features, if there are equally many. This reveals a model in
           which only the last layer was changed: the class is back at once. Between networks that were trained apart
           the order of the features is arbitrary, and the value is chance (0.2, 35 and 0 % for three retrained LeNet5
           on MNIST). So the value is a trace, and does not count as more of the class being left.
stitched   a linear map comes between them. It is fitted by ridge regression from this model's features to the
           original's, on *retain* images only (model stitching, Lenc & Vedaldi 2015). No image and no label of the
           forgotten class is used, and the features may differ in number and order. The retrained model shows how much
           of the class is found in features that were never trained on it.
The value of both is the accuracy on judged images of the forget class; with several forget classes, the highest
accuracy.
Cost: one linear solve of D x D per model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synth.checkpoint.layers import last_layer
from synth.checkpoint.masses import masses_from
from unlearn.auditing.bench import Bench
from unlearn.auditing.record.details import SHARES
from unlearn.auditing.record.record import ORIGINAL, Measurement, Reading

DETAILS = {"transplant": {"transplant-(direct|stitched)": SHARES}}
FROM_REAL_FORGET = ("transplant",)
RIDGE = 1e-2  # share of the features' mean variance


def measure(bench: Bench) -> list[Measurement]:
    source = bench.source
    original = bench.subjects[ORIGINAL][0]
    head = last_layer(original)
    retained = ~bench.is_forgotten(source.fit.labels)
    forgotten = bench.is_forgotten(source.judge.labels)
    labels = source.judge.labels[forgotten]
    target_ND = bench.outputs(original, source.fit).features[retained]
    images = bench.fewest_of(labels)
    direct, stitched = {}, {}

    judged = source.judge.select(forgotten)

    def called(features_ND: Tensor) -> float:
        answers = apply_head(head, features_ND)
        logits = answers if bench.target is None else masses_from(answers, bench.target)
        return bench.most_called(bench.right(logits, judged), labels)

    def measurement(name: str, title: str, more_left: int, least: float, readings: dict[str, Reading]) -> Measurement:
        return Measurement(
            name=name,
            family="transplant",
            title=title,
            unit="%",
            more_left=more_left,
            resolution=bench.resolution(least, images),
            source=source.kind,
            readings=readings,
            key=name == "transplant-stitched",
            details={"images": images},
        )

    for subject, models in bench.subjects.items():
        features = [bench.outputs(model, source.judge).features[forgotten] for model in models]
        if all(f.shape[1] == target_ND.shape[1] for f in features):
            direct[subject] = bench.reading([[called(f)] for f in features], images)
        moved = [
            stitch(bench.outputs(model, source.fit).features[retained], target_ND, judged_MD)
            for model, judged_MD in zip(models, features, strict=True)
        ]
        stitched[subject] = bench.reading([[called(f)] for f in moved], images)
    title = "the original's last layer through a map fitted on retain images"
    return [
        measurement("transplant-direct", "the original's last layer on its features", 0, 25.0, direct),
        measurement("transplant-stitched", title, 1, 10.0, stitched),
    ]


def apply_head(head: nn.Linear | nn.Conv2d, features_ND: Tensor) -> Tensor:
    """Logits (N, K) of features (N, D)."""
    weight = head.weight.detach().float().cpu().flatten(1)
    bias = None if head.bias is None else head.bias.detach().float().cpu()
    return F.linear(features_ND.float(), weight, bias)


def stitch(from_ND: Tensor, to_NE: Tensor, judged_MD: Tensor) -> Tensor:
    """The judged features, mapped to (M, E).

    The map minimises ||X W + b - Y||² + λ ||W||² over W and b, with λ = `RIDGE` times the mean variance of X per
    sample.
    """
    x, y = from_ND.double(), to_NE.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred / len(x)
    penalty = RIDGE * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram + penalty, centred.T @ (y - mean_y) / len(x))
    return (judged_MD.double() - mean_x) @ weights + mean_y
