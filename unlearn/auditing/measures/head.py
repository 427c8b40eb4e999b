"""Head check: what do the numbers of the last layer say about the forget classes? Needs no image.

norm   ||w_f|| / mean_r ||w_r||: the weights of the forget rows against those of the retain rows. 0 under a mask, about
       1 in the original.
bias   (b_f - mean_r b_r) / mean_r ||w_r||: the forget biases against the retain biases, in units of a row's norm.
Both are traces of how the class was removed, not of whether it was removed: a retrained model suppresses the class too.
A value far from the retrained model's gives a mask away.
Cost: none.
"""

from __future__ import annotations

from synth.checkpoint.classifier import Classifier
from synth.checkpoint.layers import last_layer
from unlearn.auditing.bench import Bench
from unlearn.auditing.record.details import NOTHING
from unlearn.auditing.record.record import Measurement, Reading

TASKS = ("classification",)
DETAILS = {"head": {"head-norm": NOTHING, "head-bias": NOTHING}}


def measure(bench: Bench) -> list[Measurement]:
    found = {
        subject: [head_of(model, bench.forget, bench.retain) for model in models]
        for subject, models in bench.subjects.items()
    }
    norms, biases = {}, {}
    for subject, heads in found.items():
        norms[subject] = bench.reading([[norm] for norm, _ in heads])
        known = [[bias] for _, bias in heads if bias is not None]
        if len(known) == len(heads):
            biases[subject] = bench.reading(known)
    measurements = [measurement("head-norm", "norm of the forget rows, against the others", 0.25, norms)]
    if biases:
        measurements.append(measurement("head-bias", "bias of the forget rows, against the others", 1.0, biases))
    return measurements


def measurement(name: str, title: str, resolution: float, readings: dict[str, Reading]) -> Measurement:
    return Measurement(
        name=name,
        family="head",
        title=title,
        unit="",
        more_left=0,
        resolution=resolution,
        source="none",
        readings=readings,
    )


def head_of(model: Classifier, forget: tuple[int, ...], retain: tuple[int, ...]) -> tuple[float, float | None]:
    """The ratio of the norms, and the distance of the biases; None for a last layer without bias."""
    layer = last_layer(model)
    norms = layer.weight.detach().double().flatten(1).norm(dim=1)
    others = norms[list(retain)].mean().clamp_min(1e-12)
    ratio = (norms[list(forget)].mean() / others).item()
    if layer.bias is None:
        return ratio, None
    bias = layer.bias.detach().double()
    return ratio, ((bias[list(forget)].mean() - bias[list(retain)].mean()) / others).item()
