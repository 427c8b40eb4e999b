"""Figures by matplotlib as SVG. The same figure gives the same bytes. matplotlib is loaded only by those who draw."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def style(salt: str) -> Any:
    """matplotlib's settings. Two figures on one page need different salts, because ids in an SVG depend on it."""
    return {"font.size": 10, "font.family": "sans-serif", "svg.fonttype": "none", "svg.hashsalt": salt}


def new_figure(salt: str, columns: int = 1, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with one plot per column and row, 4.2 x 3 inches each."""
    with matplotlib.rc_context(style(salt)):
        figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(True, color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    return figure, list(axes.flat)


def svg(figure: Figure, salt: str) -> str:
    """The figure as an SVG document, without a date."""
    buffer = io.StringIO()
    with matplotlib.rc_context(style(salt)):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    return buffer.getvalue()
