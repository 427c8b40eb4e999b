"""Last-layer transplant: whether the original's last layer finds the forgotten class in this model's features.

direct     the original's last layer on this model's features, where they are as many. Tells a model that only changed its
           last layer: there the class is back at once. Between networks trained apart the features' order is arbitrary and the
           value is chance (0.2, 35 and 0 % of three retrained LeNet5 on MNIST), so it is a trace and not judged as more left.
stitched   between them a linear map, fitted by ridge regression from this model's features to the original's on *retain* images
           alone (model stitching, Lenc & Vedaldi 2015). No image or label of the forgotten class is used, and the features may be
           others in number and order: what the class leaves in features that were never shown it, the retrained model tells.
The value of both is the accuracy on judged images of the forget class, of several the highest.
Cost: one linear solve of D x D a model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synth.checkpoint.layers import last_layer
from unlearn.audit.bench import Bench
from unlearn.audit.record.record import ORIGINAL, Measurement

RIDGE = 1e-2  # of the features' mean variance


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

    def called(features_ND: Tensor) -> float:
        return bench.most_called(apply_head(head, features_ND).argmax(1) == labels, labels)

    for subject, models in bench.subjects.items():
        features = [bench.outputs(model, source.judge).features[forgotten] for model in models]
        if all(f.shape[1] == target_ND.shape[1] for f in features):
            direct[subject] = bench.reading([[called(f)] for f in features], images)
        moved = [
            stitch(bench.outputs(model, source.fit).features[retained], target_ND, judged)
            for model, judged in zip(models, features, strict=True)
        ]
        stitched[subject] = bench.reading([[called(f)] for f in moved], images)
    titles = (
        ("transplant-direct", "the original's last layer on its features", 0, 25.0, direct),
        ("transplant-stitched", "the original's last layer through a map fitted on retain images", 1, 10.0, stitched),
    )
    return [
        Measurement(
            name=name, title=title, unit="%", more_left=more_left, resolution=bench.resolution(resolution, images),
            source=source.kind, readings=readings, details={"images": images},
        )
        for name, title, more_left, resolution, readings in titles
    ]  # fmt: skip


def apply_head(head: nn.Linear | nn.Conv2d, features_ND: Tensor) -> Tensor:
    """Logits (N, K) of features (N, D)."""
    weight = head.weight.detach().float().cpu().flatten(1)
    bias = None if head.bias is None else head.bias.detach().float().cpu()
    return F.linear(features_ND.float(), weight, bias)


def stitch(from_ND: Tensor, to_NE: Tensor, judged_MD: Tensor) -> Tensor:
    """The judged features mapped by argmin_{W,b} ||X W + b - Y||² + λ ||W||², λ being `RIDGE` of X's variance per sample."""
    x, y = from_ND.double(), to_NE.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred / len(x)
    penalty = RIDGE * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram + penalty, centred.T @ (y - mean_y) / len(x))
    return (judged_MD.double() - mean_x) @ weights + mean_y
