"""Divergence: how far are the model's answers from those of a retrained model, and from those of a random one?

js-retrained         mean_n JS(p_n || q_n) on forget images, in bits, 0 to 1; q are the retrained model's answers.
activation-distance  mean_n ||p_n - q_n||₂ on forget images, 0 to √2 (Golatkar et al. 2021).
zero-retrain         zero-retrain forgetting, mean_n (1 - JS(p_n || r_n)); r are the answers of a randomly initialised
                     model (Chundawat et al. 2023, Bad Teaching). 1 if both agree on every image, 0 if they agree on
                     none.

JS(p || q) = ½ KL(p || m) + ½ KL(q || m) with m = (p + q) / 2. Logarithms are to base 2. It is a sum over classes and a
mean over images. Public code calls `F.kl_div` with its default reduction, which also divides by the number of classes
K, and with swapped arguments: two models that disagree on every image then score 0.38 at K = 10 instead of 0. None of
these measures counts as more of the class being left. A model can be far from the retrained ones for any reason: a
student of a teacher that never saw the class is far from them on one of three seeds (docs/results/audit.md), and a
random network always is.
Cost: the forward passes that other measures share.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unlearn.auditing.bench import Bench
from unlearn.auditing.record.details import NOTHING
from unlearn.auditing.record.record import RANDOM, RETRAINED, Measurement, Reading

DETAILS = {"divergence": {"js-retrained": NOTHING, "activation-distance": NOTHING, "zero-retrain": NOTHING}}

Distance = Callable[[Tensor, Tensor], Tensor]  # of distributions (N, K) and (N, K), to (N,)


def js_bits(p: Tensor, q: Tensor) -> Tensor:
    """JS(p || q) of distributions (N, K), in bits, (N,); 0 to 1. 0 log 0 counts as 0."""
    m = 0.5 * (p + q)
    return (0.5 * (relative_entropy(p, m) + relative_entropy(q, m))).clamp(0, 1)


def relative_entropy(p: Tensor, m: Tensor) -> Tensor:
    """KL(p || m) = Σ_c p_c log2(p_c / m_c), (N, K) to (N,)."""
    return torch.where(p > 0, p * (p / m).log2(), torch.zeros_like(p)).sum(1)


def zero_retrain_forgetting(p: Tensor, r: Tensor) -> Tensor:
    """1 - JS(p || r) of distributions (N, K), (N,)."""
    return 1 - js_bits(p, r)


def activation_distance(p: Tensor, q: Tensor) -> Tensor:
    """||p - q||₂ of distributions (N, K), (N,)."""
    return (p - q).norm(dim=1)


def measure(bench: Bench) -> list[Measurement]:
    judge = bench.source.judge
    forgotten = bench.is_forgotten(judge.labels)
    answers = {
        subject: [bench.outputs(model, judge).logits[forgotten].double().softmax(1) for model in models]
        for subject, models in bench.subjects.items()
    }

    def measurement(name: str, title: str, unit: str, other: str, distance: Distance) -> Measurement:
        return Measurement(
            name=name,
            family="divergence",
            title=title,
            unit=unit,
            more_left=0,
            resolution=0.05,
            source=bench.source.kind,
            readings=distances(bench, answers, other, distance),
            against_retrained=other == RETRAINED,
        )

    found = []
    if RETRAINED in answers:
        title = "divergence from retrained on forget images"
        found.append(measurement("js-retrained", title, "bits", RETRAINED, js_bits))
        title = "activation distance to retrained on forget images"
        found.append(measurement("activation-distance", title, "", RETRAINED, activation_distance))
    if RANDOM in answers:
        found.append(measurement("zero-retrain", "zero-retrain forgetting", "", RANDOM, zero_retrain_forgetting))
    return found


def distances(bench: Bench, answers: dict[str, list[Tensor]], other: str, distance: Distance) -> dict[str, Reading]:
    """Each model's mean distance to the models of the other subject. A model is not compared with itself."""
    readings = {}
    for subject, models in answers.items():
        values = [[distance(p, q).mean().item() for q in answers[other] if q is not p] for p in models]
        if all(values):
            readings[subject] = bench.reading(values)
    return readings
