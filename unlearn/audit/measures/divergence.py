"""Distances between answers: to the retrained model, and to one that knows nothing.

js-retrained         mean_n JS(p_n || q_n) in bits on forget images, q being the retrained model's answers. 0 to 1.
activation-distance  mean_n ||p_n - q_n||₂ on forget images (Golatkar et al. 2021). 0 to √2.
zero-retrain         zero-retrain forgetting, 1 - mean_n JS(p_n || r_n), r being a randomly initialised model's answers
                     (Chundawat et al. 2023, Bad Teaching). 1 where they agree on everything, 0 where on nothing.

JS(p || q) = ½ KL(p || m) + ½ KL(q || m), m = ½ (p + q), with logarithms to base 2, summed over classes and averaged over images
alone. Public code calls `F.kl_div` with its default reduction, which divides by K as well, and with swapped arguments: two
models that disagree on everything then score 0.38 at K = 10 instead of 0.
None of them is judged as more of the class being left. A model lies far from the retrained ones for whatever reason: a student of a
teacher that never saw the class does on one of three seeds (docs/results/audit.md), and a random network does always.
Cost: no more than the forward passes that other measures share.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unlearn.audit.bench import Bench
from unlearn.audit.record.record import RANDOM, RETRAINED, Measurement, Reading

Distance = Callable[[Tensor, Tensor], Tensor]


def js_bits(p: Tensor, q: Tensor) -> Tensor:
    """JS(p || q) of distributions (N, K), in bits, (N,). Bounded by 0 and 1; 0 log 0 = 0."""
    m = 0.5 * (p + q)
    return (0.5 * (relative_entropy(p, m) + relative_entropy(q, m))).clamp(0, 1)


def relative_entropy(p: Tensor, m: Tensor) -> Tensor:
    """Σ_c p_c log2(p_c / m_c), (N, K) to (N,)."""
    return torch.where(p > 0, p * (p / m).log2(), torch.zeros_like(p)).sum(1)


def zero_retrain_forgetting(p: Tensor, r: Tensor) -> float:
    return 1 - js_bits(p, r).mean().item()


def activation_distance(p: Tensor, q: Tensor) -> Tensor:
    """||p - q||₂ of distributions (N, K), (N,)."""
    return (p - q).norm(dim=1)


def measure(bench: Bench) -> list[Measurement]:
    source = bench.source
    forgotten = bench.is_forgotten(source.judge.labels)
    answers = {
        subject: [bench.outputs(model, source.judge).logits[forgotten].double().softmax(1) for model in models]
        for subject, models in bench.subjects.items()
    }
    found = []
    if RETRAINED in answers:
        for name, title, unit, distance in (
            ("js-retrained", "divergence from retrained on forget images", "bits", js_bits),
            ("activation-distance", "activation distance to retrained on forget images", "", activation_distance),
        ):
            readings = distances(bench, answers, RETRAINED, distance)
            found.append(
                Measurement(
                    name=name, title=title, unit=unit, more_left=0, resolution=0.05, source=source.kind,
                    readings=readings, against_retrained=True,
                )
            )  # fmt: skip
    if RANDOM in answers:
        readings = distances(bench, answers, RANDOM, lambda p, r: 1 - js_bits(p, r))
        found.append(
            Measurement(
                name="zero-retrain", title="zero-retrain forgetting", unit="", more_left=0, resolution=0.05,
                source=source.kind, readings=readings,
            )
        )  # fmt: skip
    return found


def distances(bench: Bench, answers: dict[str, list[Tensor]], other: str, distance: Distance) -> dict[str, Reading]:
    """Each model's mean distance to the models of the other subject; a model isn't compared with itself."""
    readings = {}
    for subject, models in answers.items():
        values = [[distance(p, q).mean().item() for q in answers[other] if q is not p] for p in models]
        if all(values):
            readings[subject] = bench.reading(values)
    return readings
