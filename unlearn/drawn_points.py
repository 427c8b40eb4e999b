"""A case for tests and benchmarks: training images drawn at random, some of them with a wrong label, as a folder of
points.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import torch
from PIL import Image

from synth.basics.disk import write_file
from synth.basics.errors import UsageError
from unlearn.data import LabelledImages

LABELS = "labels.csv"


def draw_points(data: LabelledImages, count: int, wrong: float, seed: int) -> tuple[LabelledImages, torch.Tensor]:
    """`count` different images, and the mask (P,) of those whose label is wrong: a share `wrong` of them, drawn from
    the other classes.

    Raises UsageError if there are not so many images, or only one class.
    """
    if count > len(data) or len(data.class_names) < 2:
        raise UsageError(f"the data have {len(data):,} images of {len(data.class_names)} classes: draw fewer points")
    rng = torch.Generator().manual_seed(seed)
    points = data.select(torch.randperm(len(data), generator=rng)[:count])
    is_wrong = torch.arange(count) < round(wrong * count)
    away = torch.randint(1, len(data.class_names), (count,), generator=rng)
    points.labels[is_wrong] = ((points.labels + away) % len(data.class_names))[is_wrong]
    return points, is_wrong


def write_points(points: LabelledImages, is_wrong: torch.Tensor, folder: Path) -> None:
    """PNGs in a new folder, and a table of their labels. Only the files' names say which labels are wrong."""
    folder.mkdir(parents=True)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["path", "label"])
    for number, (image, label, wrong) in enumerate(zip(points.images, points.labels, is_wrong, strict=True)):
        name = f"{number:04d}-{'wrong' if wrong else 'right'}.png"
        pixels, data = image.permute(1, 2, 0).squeeze(2).numpy(), io.BytesIO()
        Image.fromarray(pixels).save(data, "PNG")
        write_file(folder / name, data.getvalue())
        rows.writerow([name, points.class_names[label]])
    write_file(folder / LABELS, table.getvalue().encode())
