"""Charts as SVG inside the page, drawn by matplotlib.

Each chart shows its series by colour and also by dash or marker, and says in words what it shows.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from synth.basics import drawing
from unlearn.auditing.record.record import MASKED, MODEL, ORIGINAL, PUBLIC, RANDOM, RETRAINED, SUBJECTS
from unlearn.report.consistency import is_number
from unlearn.report.page.tables import finding_of, title_of
from unlearn.report.printable import printable

# Okabe and Ito's colours, which differ for every kind of colour vision, dark enough on white.
STYLES: dict[str, dict[str, Any]] = {
    ORIGINAL: {"color": "#000000", "linestyle": "-"},
    MASKED: {"color": "#b84a00", "linestyle": "--"},
    MODEL: {"color": "#0060a0", "linestyle": "-", "linewidth": 2.6},
    RETRAINED: {"color": "#007a5a", "linestyle": "-.", "linewidth": 2.2},
    PUBLIC: {"color": "#a0457a", "linestyle": (0, (3, 1, 1, 1))},
    RANDOM: {"color": "#6a6a6a", "linestyle": ":"},
}
MARKERS: dict[str, str] = {MODEL: "o", RETRAINED: "D", MASKED: "^", ORIGINAL: "s"}
APART = (-0.21, -0.07, 0.07, 0.21)  # of a row's height: marks of equal values stay visible
LABEL = 28  # characters of a line
SALT = "report"
DRAWING = matplotlib.rc_context(
    drawing.style(SALT) | {"text.parse_math": False}
)  # a name with dollar signs is no formula


@dataclass(frozen=True)
class Chart:
    """A chart with the words below it."""

    svg: Markup
    caption: str


def embedded_svg(figure: Figure, alt: str) -> Markup:
    """The figure as an <svg> that a screen reader reads as `alt`. The same figure gives the same bytes."""
    text = drawing.svg(figure, SALT)
    text = text[text.index("<svg") :]
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1))


def figure_of_size(width: float = 4.2, height: float = 3.0) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes."""
    figure, (axis,) = drawing.new_figure(SALT)
    figure.set_size_inches(width, height)
    return figure, axis


@DRAWING
def key_measures(measurements: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> Markup:
    """One row per measure in per cent: a mark for the mean of each subject, and a band for the retrained models'
    interval.
    """
    rows = [m for m in measurements if m["unit"] == "%"]
    figure, axis = figure_of_size(5.4, 0.9 + 0.58 * len(rows))
    for place, m in enumerate(rows):
        finding = finding_of(m, record)
        if finding and finding["interval"]:
            axis.plot(finding["interval"], [place, place], color="#9fd3bf", linewidth=18, solid_capstyle="butt")
    words: dict[str, list[str]] = {title_of(m): [] for m in rows}
    for (subject, marker), apart in zip(MARKERS.items(), APART, strict=True):
        places = [place for place, m in enumerate(rows) if subject in m["readings"]]
        means = [rows[place]["readings"][subject]["mean"] for place in places]
        size, color = 80 if subject == MODEL else 40, STYLES[subject]["color"]
        heights = [place + apart for place in places]
        axis.scatter(means, heights, size, color=color, marker=marker, label=subject, zorder=3)
        for place, mean in zip(places, means, strict=True):
            words[title_of(rows[place])].append(f"{subject} {mean:.1f}")
    axis.set_yticks(range(len(rows)), [textwrap.fill(printable(m["title"]), LABEL) for m in rows], fontsize=9)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(-3, 103)
    axis.set_xlabel("%")
    figure.legend(loc="outside upper center", ncols=len(MARKERS), fontsize=9, frameon=False, handletextpad=0.2)
    return embedded_svg(figure, "; ".join(f"{title}: {', '.join(means)}" for title, means in words.items()) + ".")


@DRAWING
def draw_relearning(measurement: Mapping[str, Any]) -> Markup:
    """The mean curve of each subject, a band from its lowest to its highest repeat, the target, and open ends where cut
    off.
    """
    figure, axis = figure_of_size()
    details = measurement["details"]
    words = []
    for subject in (s for s in SUBJECTS if s in details["curves"]):
        curves, style = details["curves"][subject], STYLES[subject]
        steps = np.array(curves[0]["steps"], dtype=float)
        values = np.array([curve["accuracy"] for curve in curves], dtype=float)
        mean = values.mean(0)
        axis.plot(steps + 1, mean, label=subject, **style)
        axis.fill_between(steps + 1, values.min(0), values.max(0), color=style["color"], alpha=0.10, linewidth=0)
        cut = sum(curve["censored"] for curve in curves)
        if cut:
            end = {"marker": ">", "markersize": 8, "markerfacecolor": "white", "color": style["color"]}
            axis.plot(steps[-1] + 1, mean[-1], **end)
        ends = f", cut off below the target in {cut} of {len(curves)} runs" if cut else ""
        words.append(f"{subject} ends at {mean[-1]:.0f} %{ends}")
    axis.axhline(details["target"], color="#444444", linewidth=0.8)
    axis.set_xscale("log", base=2)
    ticks = [s for s in curves[0]["steps"] if s == 0 or (s & (s - 1)) == 0]
    axis.set_xticks([s + 1.0 for s in ticks], [str(s) for s in ticks])
    axis.minorticks_off()
    axis.set_ylim(-3, 103)
    axis.set_xlabel("relearning steps")
    axis.set_ylabel("forget accuracy, %")
    axis.legend(fontsize=8, frameon=False)
    return embedded_svg(figure, f"{measurement['title']}: forget accuracy over steps; {'; '.join(words)}.")


@DRAWING
def draw_entropies(histograms: Sequence[Mapping[str, Any]], images: str, threshold: float | None) -> Markup:
    """The share of images over the entropy of each subject's answers, and the threshold of the training filter."""
    figure, axis = figure_of_size()
    words = []
    for line in (h for subject in SUBJECTS for h in histograms if (h["subject"], h["images"]) == (subject, images)):
        counts = np.array(line["counts"], dtype=float)
        edges = np.linspace(0, line["highest"], len(counts) + 1)
        share = 100 * counts / max(1.0, counts.sum())
        axis.stairs(share, edges, label=line["subject"], **STYLES[line["subject"]])
        mean = float((share * (edges[:-1] + edges[1:]) / 2).sum() / 100)
        words.append(f"{line['subject']} about {mean:.2f}")
    if threshold is not None:
        axis.axvline(threshold, color="#444444", linewidth=1.0, linestyle=(0, (1, 1)))
        axis.annotate(f" filter {threshold:g}", (threshold, axis.get_ylim()[1]), fontsize=8, va="top")
        words.append(f"the filter's threshold {threshold:g}")
    axis.set_xlabel("entropy, nats")
    axis.set_ylabel("% of images")
    if words:
        axis.legend(fontsize=8, frameon=False)
    return embedded_svg(figure, f"Entropy of the answers to {images} images, mean in nats: {', '.join(words)}.")


def draw_training(metrics: Sequence[Mapping[str, Any]]) -> list[Markup]:
    """The run's own curves: each value of its metrics over its steps."""
    names = sorted({name for line in metrics for name, value in line.items() if is_number(value)} - {"step", "samples"})
    return [curve(metrics, name) for name in names]


@DRAWING
def curve(metrics: Sequence[Mapping[str, Any]], name: str) -> Markup:
    figure, axis = figure_of_size()
    points = [(line["step"], float(line[name])) for line in metrics if is_number(line.get(name))]
    axis.plot(*np.array(points, dtype=float).T, color="#0060a0")
    axis.set_xlabel("step")
    axis.set_ylabel(printable(name, LABEL))
    (first, start), (last, end) = points[0], points[-1]
    return embedded_svg(
        figure, f"{name} over training steps, from {start:.4g} at step {first} to {end:.4g} at step {last}."
    )


@DRAWING
def filters(samples: Mapping[str, int]) -> Markup:
    """How many samples were kept, and how many each filter dropped."""
    figure, axis = figure_of_size()
    places, counts = range(len(samples)), [float(count) for count in samples.values()]
    bars = axis.barh(places, counts, color=["#0060a0" if name == "kept" else "#b84a00" for name in samples])
    axis.set_yticks(places, [printable(name, LABEL) for name in samples])
    axis.bar_label(bars, labels=[f" {count:,}" for count in samples.values()], fontsize=8)
    axis.margins(x=0.2)
    axis.set_xlabel("samples")
    return embedded_svg(figure, "Samples: " + ", ".join(f"{name} {count:,}" for name, count in samples.items()) + ".")
