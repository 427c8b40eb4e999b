"""The values of an audit of points fit together, and to what the models call each point; and the points are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from synth.basics.errors import UserError
from unlearn.auditing.points.lineup import group
from unlearn.auditing.record.record import ORIGINAL, RETRAINED
from unlearn.points import load_points
from unlearn.report.consistency import Record
from unlearn.report.verify.checks import NOT_CHECKED, Check, Fault, all_hold, compared
from unlearn.report.verify.values import close, readings


def point_values(record: Record) -> Iterator[Check]:
    yield from all_hold("means and intervals follow from the values", readings(record))
    yield from all_hold("the groups of the points follow from what the models call them", groups(record))
    yield from all_hold("the shares of labels follow from what the models call the points", labels(record))


def calls(record: Record, subject: str) -> Tensor:
    """What each of the subject's models calls the points, class numbers (models, points)."""
    numbers = {name: number for number, name in enumerate(record["class_names"])}
    return torch.tensor([[numbers[name] for name in point["called"].get(subject, ())] for point in record["points"]]).T


def labels_in(record: Record) -> Tensor:
    numbers = {name: number for number, name in enumerate(record["class_names"])}
    return torch.tensor([numbers[point["label"]] for point in record["points"]])


def groups(record: Record) -> Iterator[Fault]:
    written = [point["group"] for point in record["points"]]
    expected = ["unknown"] * len(written)
    if record["models"]["references"]:
        found = group(labels_in(record), calls(record, ORIGINAL)[0], calls(record, RETRAINED))
        expected = [
            "memorised" if memorised else "typical" if typical else "other"
            for memorised, typical in zip(found.memorised.tolist(), found.typical.tolist(), strict=True)
        ]
    for point, of in zip(record["points"], expected, strict=True):
        if point["group"] != of:
            yield f"the group of {point['file'][:40]}", f"it is {of} by what the models call it"


def labels(record: Record) -> Iterator[Fault]:
    in_group = [point["group"] for point in record["points"]]
    for m in record["measurements"]:
        if m["family"] != "labels":
            continue
        name = m["name"].partition("-")[2]
        mask = torch.tensor([name in ("all", of) for of in in_group])
        for subject, reading in m["readings"].items():
            right = (calls(record, subject) == labels_in(record))[:, mask].double()
            if not right.numel() or not close((100 * right.mean(1))[:, None].tolist(), reading["values"]):
                yield f"the value of {m['name']}, {subject}", "it isn't that of what the models call the points"


def points_folder(record: Record, folder: Path | None) -> Iterator[Check]:
    """The points are the audited ones, by their pixels. They may be gone, once the request is answered."""
    what = "the points are those that were audited"
    run = record["origin"]["run"]
    if run and "points_sha256" in run["settings"]:
        same = "the run forgot the points that were audited"
        yield compared(same, run["settings"]["points_sha256"], record["points_sha256"])
    if folder is None or not folder.is_dir():
        why = f"there is no folder {folder}: name their place now with --forget-points, if there is one still"
        yield Check(what, NOT_CHECKED, why)
        return
    channels, height, width = record["image_shape"]
    try:
        found = load_points(folder, (channels, height, width), record["class_names"])
    except UserError as error:
        yield Check(what, NOT_CHECKED, str(error))
        return
    yield compared(what, found.sha256, record["points_sha256"])
