"""A picture of the points: below each its label, and what the original, the student and a retrained model call it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from synth.basics.grids import Row, Text, draw_rows, png_bytes
from unlearn.auditing.points.lineup import Groups
from unlearn.auditing.record.record import MODEL, ORIGINAL, RETRAINED
from unlearn.points import Points

SHOWN, CELL, MARGIN = 12, 64, 124  # points of a group; pixels: side of a point, width of the groups' names
LONGEST = 4  # characters of a class's name below a point


def draw_points_called(points: Points, labels: Tensor, called: Mapping[str, Tensor], groups: Groups | None) -> bytes:
    """A PNG with one row per group; one row of all points if no group has any.

    Args:
        labels: (P,).
        called: by subject, the classes (M, P) that its models call the points.
    """
    by_name = dict(groups.by_name) if groups else {}
    if not any(mask.any() for mask in by_name.values()):
        by_name = {"points": torch.ones(len(points), dtype=torch.bool)}
    shown = [subject for subject in (ORIGINAL, MODEL, RETRAINED) if subject in called]
    rows = []
    for name, mask in by_name.items():
        numbers = mask.nonzero()[:SHOWN, 0].tolist()
        if not numbers:
            continue
        below = [
            "/".join(points.class_names[int(c)][:LONGEST] for c in (labels[n], *(called[s][0, n] for s in shown)))
            for n in numbers
        ]
        texts = [Text(2, CELL // 2 - 12, name), Text(2, CELL + 2, "label/" + "/".join(s[:4] for s in shown))]
        rows.append(Row([points.images[n].numpy() for n in numbers], texts, below))
    columns = max(len(row.below) for row in rows)
    return png_bytes(draw_rows(rows, columns, CELL, CELL, MARGIN), optimise=True)
