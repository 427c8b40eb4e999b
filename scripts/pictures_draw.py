"""What `scripts/pictures` draws itself: the pipeline, and a screenshot made small enough for a repository."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import click
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from synth.basics.disk import write_file
from synth.basics.grids import png_bytes
from synth.basics.image_files import read_image
from synth.run.view import labelled_images
from synth.shards.index import read_index
from synth.shards.store import open_store

PATH = click.Path(path_type=Path)
INK, MUTED, LINE, FILL, FORGET = "#1f2933", "#5b6770", "#9aa5b1", "#f5f7fa", "#c0392b"
SYNTH, UNLEARN = "#1b6ca8", "#2a7f62"
WIDTH, HEIGHT = 11.0, 2.6  # inches, and the units of everything below
BOX_HEIGHT, BOX_BOTTOM = 1.75, 0.58


@click.group()
def main() -> None:
    """Draw or shrink one picture of the README."""


@main.command()
@click.argument("shards", type=PATH)
@click.argument("out", type=PATH)
def pipeline(shards: Path, out: Path) -> None:
    """The way of the data, with images of the run SHARDS in its middle."""
    matplotlib.rcParams.update({"font.family": "DejaVu Sans", "svg.hashsalt": "pipeline"})
    figure = Figure(figsize=(WIDTH, HEIGHT), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, HEIGHT)
    axes.axis("off")
    box(axes, 0.15, 1.65, "your checkpoint", "the training data is gone")
    arrow(axes, 1.85, 3.1, "synth generate", "one machine\nor a Ray cluster", SYNTH)
    box(axes, 3.15, 2.15, "shards", "images and the teacher's answers")
    arrow(axes, 5.35, 6.5, "unlearn distill", "one machine,\nno teacher", UNLEARN)
    box(axes, 6.55, 1.5, "student", "never given the class")
    arrow(axes, 8.1, 9.25, "unlearn audit", "and report", UNLEARN)
    box(axes, 9.3, 1.55, "report", "what is left of the class")
    network(axes, 0.98, FORGET)
    network(axes, 7.3, None)
    thumbnails(axes, 3.15 + 2.15 / 2, first_images(shards, classes=5, count=2))
    bars(axes, 9.3 + 1.55 / 2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=out.suffix[1:], metadata={"Date": None} if out.suffix == ".svg" else None, dpi=150)
    write_file(out, buffer.getvalue())


def box(axes: Axes, left: float, width: float, title: str, note: str) -> None:
    shape = "round,pad=0,rounding_size=0.12"
    patch = FancyBboxPatch((left, BOX_BOTTOM), width, BOX_HEIGHT, boxstyle=shape, facecolor=FILL, edgecolor=LINE)
    axes.add_patch(patch)
    centre = left + width / 2
    axes.text(
        centre, BOX_BOTTOM + BOX_HEIGHT - 0.26, title, ha="center", va="center", size=11, weight="bold", color=INK
    )
    axes.text(centre, BOX_BOTTOM - 0.22, note, ha="center", va="center", size=8.5, color=MUTED)


def arrow(axes: Axes, left: float, right: float, command: str, note: str, colour: str) -> None:
    y = BOX_BOTTOM + BOX_HEIGHT / 2
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 2, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=(right, y), xytext=(left, y), arrowprops=style)
    centre = (left + right) / 2
    axes.text(centre, y + 0.2, command, ha="center", va="center", size=8.5, weight="bold", color=colour)
    axes.text(centre, y - 0.16, note, ha="center", va="top", size=7.5, color=MUTED)


def network(axes: Axes, centre: float, forgotten: str | None) -> None:
    """A small network; its first output, the class to forget, in a colour of its own or missing."""
    layers = [
        (centre - 0.42, (0.32, 0.0, -0.32)),
        (centre, (0.48, 0.16, -0.16, -0.48)),
        (centre + 0.42, (0.32, 0.0, -0.32)),
    ]
    middle = BOX_BOTTOM + 0.72
    for (x, ys), (next_x, next_ys) in pairwise(layers):
        for y in ys:
            for next_y in next_ys:
                if forgotten or (next_x, next_y) != (layers[-1][0], 0.32):
                    axes.plot((x, next_x), (middle + y, middle + next_y), color=LINE, linewidth=0.6, zorder=2)
    for x, ys in layers:
        for y in ys:
            first_output = x == layers[-1][0] and y == 0.32
            if first_output and not forgotten:
                axes.plot(x, middle + y, "o", markersize=8, mfc="none", mec=LINE, linestyle="none", zorder=3)
            else:
                colour = forgotten if first_output else INK
                axes.plot(x, middle + y, "o", markersize=8, color=colour, zorder=3)


def thumbnails(axes: Axes, centre: float, images: list[list[np.ndarray]]) -> None:
    """Images of each class (a column each); those of the first class are crossed out."""
    side, gap = 0.36, 0.04
    left = centre - (len(images) * (side + gap) - gap) / 2
    for column, of_class in enumerate(images):
        for row, image in enumerate(of_class):
            x, y = left + column * (side + gap), BOX_BOTTOM + 0.72 - row * (side + gap)
            axes.imshow(
                image, extent=(x, x + side, y, y + side), cmap="gray", vmin=0, vmax=255, zorder=3, aspect="auto"
            )
            if column == 0:
                axes.plot((x, x + side), (y, y + side), color=FORGET, linewidth=2.2, zorder=4)
                axes.plot((x, x + side), (y + side, y), color=FORGET, linewidth=2.2, zorder=4)


def bars(axes: Axes, centre: float) -> None:
    """A report in small: one measure of each model."""
    for row, (length, colour) in enumerate([(0.95, FORGET), (0.85, MUTED), (0.25, UNLEARN), (0.2, LINE)]):
        y = BOX_BOTTOM + 1.1 - row * 0.25
        axes.barh(y, length, height=0.14, left=centre - 0.5, color=colour, zorder=3)


def first_images(run: Path, classes: int, count: int) -> list[list[np.ndarray]]:
    """The first `count` images of the first `classes` classes of a run."""
    found: list[list[np.ndarray]] = [[] for _ in range(classes)]
    store = open_store(str(run))
    for label, image in labelled_images(store, read_index(store)):
        if label < classes and len(found[label]) < count:
            found[label].append(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        if all(len(images) == count for images in found):
            break
    return found


@main.command()
@click.argument("shards", type=PATH)
@click.argument("out", type=PATH)
@click.option("--columns", default=6, show_default=True)
@click.option("--side", default=168, show_default=True, help="pixels of each image in the picture")
def photographs(shards: Path, out: Path, columns: int, side: int) -> None:
    """The images of the run SHARDS side by side, in the order of their classes."""
    store = open_store(str(shards))
    images = [image for _, image in sorted(labelled_images(store, read_index(store)), key=lambda found: found[0])]
    picture = Image.new("RGB", (columns * side, -(-len(images) // columns) * side))
    for place, image in enumerate(images):
        small = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).resize(
            (side, side), Image.Resampling.LANCZOS
        )
        picture.paste(small, (place % columns * side, place // columns * side))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=88)
    write_file(out, buffer.getvalue())


@main.command()
@click.argument("screenshot", type=PATH)
@click.argument("out", type=PATH)
def shrink(screenshot: Path, out: Path) -> None:
    """Write the picture SCREENSHOT with 128 colours, which a page of text and charts does not miss."""
    picture = read_image(screenshot).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    write_file(out, png_bytes(picture, optimise=True))


if __name__ == "__main__":
    main()
