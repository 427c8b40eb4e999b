"""Charts as SVG inside the page, by matplotlib. Each tells its series by colour and by dash or hatch, and has words beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synth.basics import drawing
from unlearn.audit.record.record import MASKED, MODEL, ORIGINAL, RANDOM, RETRAINED, SUBJECTS

# Okabe & Ito's colours, which people with any colour vision tell apart, dark enough on white.
STYLES: dict[str, dict[str, Any]] = {
    ORIGINAL: {"color": "#000000", "linestyle": "-"},
    MASKED: {"color": "#b84a00", "linestyle": "--"},
    MODEL: {"color": "#0060a0", "linestyle": "-", "linewidth": 2.6},
    RETRAINED: {"color": "#007a5a", "linestyle": "-.", "linewidth": 2.2},
    RANDOM: {"color": "#6a6a6a", "linestyle": ":"},
}
SALT = "report"


def svg(figure: Figure, alt: str) -> str:
    """The figure as an <svg> that a screen reader reads as `alt`. The same figure gives the same bytes."""
    text = drawing.svg(figure, SALT)
    text = text[text.index("<svg") :]
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt, quote=True)}"', 1)


def new_figure(columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    return drawing.new_figure(SALT, columns, rows)


def relearning(measurement: Mapping[str, Any]) -> str:
    """Mean curve of each subject, its lowest and highest repeat as a band, the target, and open ends where censored."""
    figure, (axis,) = new_figure()
    details = measurement["details"]
    told = []
    for subject in (s for s in SUBJECTS if s in details["curves"]):
        curves = details["curves"][subject]
        steps = np.array(curves[0]["steps"])
        values = np.array([curve["accuracy"] for curve in curves])
        axis.plot(steps + 1, values.mean(0), label=subject, **STYLES[subject])
        axis.fill_between(
            steps + 1, values.min(0), values.max(0), color=STYLES[subject]["color"], alpha=0.10, linewidth=0
        )
        cut = sum(curve["censored"] for curve in curves)
        if cut:
            axis.plot(steps[-1] + 1, values.mean(0)[-1], marker=">", markersize=8, markerfacecolor="white",
                      color=STYLES[subject]["color"])  # fmt: skip
        ends = f", cut off below the target in {cut} of {len(curves)} runs" if cut else ""
        told.append(f"{subject} ends at {values.mean(0)[-1]:.0f} %{ends}")
    axis.axhline(details["target"], color="#444444", linewidth=0.8)
    axis.set_xscale("log", base=2)
    ticks = [s for s in steps.tolist() if s == 0 or (s & (s - 1)) == 0]
    axis.set_xticks([s + 1 for s in ticks], [str(s) for s in ticks])
    axis.minorticks_off()
    axis.set_ylim(-3, 103)
    axis.set_xlabel("relearning steps")
    axis.set_ylabel("forget accuracy, %")
    axis.legend(fontsize=8, frameon=False)
    return svg(figure, f"{measurement['title']}: forget accuracy over steps; {'; '.join(told)}.")


def entropies(histograms: Sequence[Mapping[str, Any]], images: str, thresholds: Mapping[str, float]) -> str:
    """Share of images over the entropy of each subject's answers."""
    figure, (axis,) = new_figure()
    told = []
    for line in (h for subject in SUBJECTS for h in histograms if (h["subject"], h["images"]) == (subject, images)):
        counts = np.array(line["counts"], dtype=float)
        edges = np.linspace(0, line["highest"], len(counts) + 1)
        share = 100 * counts / max(1.0, counts.sum())
        axis.stairs(share, edges, label=line["subject"], **STYLES[line["subject"]])
        mean = float((share * (edges[:-1] + edges[1:]) / 2).sum() / 100)
        told.append(f"{line['subject']} about {mean:.2f}")
    for name, value in thresholds.items():
        axis.axvline(value, color="#444444", linewidth=1.0, linestyle=(0, (1, 1)))
        axis.annotate(f" {name} {value:g}", (value, axis.get_ylim()[1]), fontsize=8, va="top")
    axis.set_xlabel("entropy, nats")
    axis.set_ylabel("% of images")
    axis.legend(fontsize=8, frameon=False)
    lines = "".join(f"; threshold {name} at {value:g}" for name, value in thresholds.items())
    return svg(figure, f"Entropy of the answers to {images} images, mean in nats: {', '.join(told)}{lines}.")


def training(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The run's own curves: each value of its metrics over its steps."""
    names = sorted({name for line in metrics for name, value in line.items() if is_number(value)} - {"step"})
    return [curve(metrics, name) for name in names if name != "samples"]


def curve(metrics: Sequence[Mapping[str, Any]], name: str) -> str:
    figure, (axis,) = new_figure()
    points = [(line["step"], line[name]) for line in metrics if is_number(line.get(name))]
    axis.plot(*zip(*points, strict=True), color="#0060a0")
    axis.set_xlabel("step")
    axis.set_ylabel(name)
    (first, start), (last, end) = points[0], points[-1]
    words = f"{name} over training steps, from {start:.4g} at step {first} to {end:.4g} at step {last}."
    return svg(figure, words)


def filters(samples: Mapping[str, int]) -> str:
    """How many samples were kept, and dropped by which filter."""
    figure, (axis,) = new_figure()
    names = list(samples)
    bars = axis.barh(names, [samples[n] for n in names], color=["#0060a0" if n == "kept" else "#b84a00" for n in names])
    axis.bar_label(bars, labels=[f" {samples[n]:,}" for n in names], fontsize=8)
    axis.margins(x=0.2)
    axis.set_xlabel("samples")
    return svg(figure, "Samples: " + ", ".join(f"{name} {count:,}" for name, count in samples.items()) + ".")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
