"""Head check: what the last layer's own numbers say of the forget classes. Needs no image.

norm   ||w_f|| / mean_r ||w_r||, the forget rows' weights against the retain rows'. 0 under a mask, about 1 in the original.
bias   (b_f - mean_r b_r) / mean_r ||w_r||, the forget biases against the retain ones, in units of a row's norm.
Both are traces of how the class was removed, not of whether it was: a retrained model suppresses the class too. Far from the
retrained model's value they give a mask away.
Cost: none.
"""

from __future__ import annotations

from synth.checkpoint.classifier import Classifier
from synth.checkpoint.layers import last_layer
from unlearn.audit.bench import Bench
from unlearn.audit.record.record import Measurement, Reading


def measure(bench: Bench) -> list[Measurement]:
    found = {
        subject: [head_of(model, bench.forget, bench.retain) for model in models]
        for subject, models in bench.subjects.items()
    }
    biased = {s: values for s, values in found.items() if all(bias is not None for _, bias in values)}
    norms: dict[str, Reading] = {s: bench.reading([[norm] for norm, _ in v]) for s, v in found.items()}
    biases: dict[str, Reading] = {s: bench.reading([[b] for _, b in v if b is not None]) for s, v in biased.items()}
    return [
        Measurement(
            name=f"head-{name}", title=title, unit="", more_left=0, resolution=resolution, source="none", readings=readings
        )
        for name, title, resolution, readings in (
            ("norm", "norm of the forget rows, against the others", 0.25, norms),
            ("bias", "bias of the forget rows, against the others", 1.0, biases),
        )
        if readings
    ]  # fmt: skip


def head_of(model: Classifier, forget: tuple[int, ...], retain: tuple[int, ...]) -> tuple[float, float | None]:
    """The norm's ratio and the bias's distance; None for a last layer without bias."""
    layer = last_layer(model)
    norms = layer.weight.detach().double().flatten(1).norm(dim=1)
    others = norms[list(retain)].mean().clamp_min(1e-12)
    ratio = (norms[list(forget)].mean() / others).item()
    if layer.bias is None:
        return ratio, None
    bias = layer.bias.detach().double()
    return ratio, ((bias[list(forget)].mean() - bias[list(retain)].mean()) / others).item()
