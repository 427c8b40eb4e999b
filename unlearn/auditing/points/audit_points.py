"""An audit of points, from its request to the record and the picture in its folder."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synth.basics.disk import sha256_of
from synth.basics.versions import package_versions
from synth.basics.way_on import WayOn
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.file import read_card, student_file
from synth.run.lock import locked, refuse_held
from unlearn.auditing.audit_folder import AuditFolder
from unlearn.auditing.audit_settings import AuditSettings
from unlearn.auditing.images import entry
from unlearn.auditing.points.lineup import Beside, Groups, group, labels_of, line_up, stand_beside
from unlearn.auditing.points.point_measures import ask, measure_points, retain_accuracy
from unlearn.auditing.points.point_picture import draw_points_called
from unlearn.auditing.points.point_verdict import controls_on_points, failed, judge_points
from unlearn.auditing.points.points_record import VERSION, check_points_record
from unlearn.auditing.record.audited_models import data_json, models_json
from unlearn.auditing.record.origin import describe_origin
from unlearn.auditing.record.record import MODEL, ORIGINAL, RETRAINED
from unlearn.auditing.record.schema import POINTS_FORMAT
from unlearn.auditing.record.versions import PACKAGE, audit_version
from unlearn.data import DataSource, LabelledImages, check_data
from unlearn.points import UNKNOWN, Points, load_points

WAY_ON = WayOn(command="unlearn audit", anew="start again with --overwrite")
PICTURE = "points.png"
INPUTS = ("points_sha256", "models", "request", "seed", "settings")  # the parts that every value depends on


@dataclass(frozen=True, kw_only=True)
class PointsRequest:
    """What a user asks of an audit of points."""

    student: Path
    teacher: Path
    points: Path
    references: Sequence[Path] = ()
    data: DataSource | None = None
    out: Path
    settings: AuditSettings = field(default_factory=AuditSettings)
    trusted_architecture: str | None = None
    seed: int = 0
    overwrite: bool = False
    way_on: WayOn = WAY_ON  # of the command that a person started


def audit_points(request: PointsRequest, say: Callable[[str], None]) -> dict[str, Any]:
    """Run every measure that the inputs allow, write the folder, and return the record.

    Raises:
        UsageError, UserError: the request does not fit its models, points, images or folder.
    """
    folder = AuditFolder(request.out, request.way_on)
    refuse_held(folder.store)
    folder.check(overwrite=request.overwrite)
    started = time.monotonic()
    record, picture = make_record(request, say)
    check_points_record(record, "the audit")
    with locked(folder.store, request.way_on, say) as lock:
        folder.begin(lock, {name: record[name] for name in INPUTS}, overwrite=request.overwrite)
        seconds = {"all": round(time.monotonic() - started, 3)}
        folder.write(record, {PICTURE: picture}, {"seconds": seconds})
    return record


def make_record(request: PointsRequest, say: Callable[[str], None]) -> tuple[dict[str, Any], bytes]:
    """The record, and the picture of the points. Neither depends on a clock."""
    card = read_card(request.teacher)
    points = load_points(request.points, card.input_shape, card.class_names, say=say)
    models, doubts = line_up(
        request.student, request.teacher, request.references, points, request.trusted_architecture, request.seed
    )
    for doubt in doubts:
        say(f"warning: {doubt}")
    original = models[ORIGINAL][0]
    labels = labels_of(points, original)
    called = {name: torch.stack([predict(m, points.images).argmax(1) for m in each]) for name, each in models.items()}
    groups = group(labels, called[ORIGINAL][0], called[RETRAINED]) if RETRAINED in called else None
    test, beside, others = test_images(request, original, labels, groups, say)
    said = ask(models, points.images, beside, others)
    confidence = request.settings.confidence
    measurements = measure_points(said, labels, groups, beside, others, confidence)
    if test is not None:
        measurements.append(retain_accuracy(models, test, confidence))
    verdict = judge_points(measurements, confidence)
    known = controls_on_points(measurements, confidence)
    memorised = int(groups.memorised.sum()) if groups else 0
    ledger = [entry("the points to forget", "points", "judging every measure", torch.arange(len(points)))]
    if request.data and test is not None:
        ledger.append(
            entry(request.data.name, "test", "accuracy, and images beside the points", torch.arange(len(test)))
        )
    picture = draw_points_called(points, labels, called, groups)
    record = {
        "format": POINTS_FORMAT,
        "format_version": VERSION,
        "points": points_json(points, labels, called, groups),
        "points_sha256": points.sha256,
        "image_shape": list(card.input_shape),
        "class_names": list(card.class_names),
        "seed": request.seed,
        "device": "cpu",
        "settings": dataclasses.asdict(request.settings),
        "request": request_json(request, card),
        "models": models_json(request.student, request.teacher, request.references, None, models),
        "origin": describe_origin(student_file(request.student), models[MODEL][0].digest, None),
        "doubts": doubts,
        "measurements": [m.to_json() for m in measurements],
        "not_run": not_run(request, groups, beside),
        "verdict": dataclasses.asdict(verdict),
        "controls": known,
        "failed_controls": failed(known, memorised),
        "ledger": ledger,
        "pictures": {PICTURE: sha256_of(picture)},
        "versions": {**package_versions(), "scipy": version("scipy"), PACKAGE: audit_version()},
    }
    return json.loads(json.dumps(record)), picture


def test_images(
    request: PointsRequest, original: Classifier, labels: Tensor, groups: Groups | None, say: Callable[[str], None]
) -> tuple[LabelledImages | None, Beside | None, LabelledImages | None]:
    """All real test images, those that stand beside the points, and a population of others; None without them."""
    if request.data is None:
        return None, None, None
    card, data = original.card, request.data
    test = check_data(card, data.load("test", card), request.teacher, data.name, (), say)
    if groups is None:
        return test, None, None
    beside, others = stand_beside(test, labels, groups.called, torch.Generator().manual_seed(request.seed))
    return test, beside, others


def points_json(
    points: Points, labels: Tensor, called: dict[str, Tensor], groups: Groups | None
) -> list[dict[str, Any]]:
    """One line per point: its file, its label, its group, and what each model calls it."""
    names = points.class_names
    group_of = ["other"] * len(points)
    for name, mask in (groups.by_name if groups else {}).items():
        for number in mask.nonzero()[:, 0].tolist():
            group_of[number] = name
    return [
        {
            "file": file,
            "label": names[int(labels[n])],
            "label_known": int(points.labels[n]) != UNKNOWN,
            "group": group_of[n] if groups else "unknown",
            "called": {subject: [names[c] for c in each[:, n].tolist()] for subject, each in called.items()},
        }
        for n, file in enumerate(points.names)
    ]


def request_json(request: PointsRequest, card: ModelCard) -> dict[str, Any]:
    """What `unlearn replay` starts from. Paths are as the user gave them."""
    return {
        "student": str(request.student),
        "teacher": str(request.teacher),
        "references": [str(path) for path in request.references],
        "points": str(request.points),
        "data": data_json(request.data, card),
    }


def not_run(request: PointsRequest, groups: Groups | None, beside: Beside | None) -> list[dict[str, str]]:
    """What the missing inputs leave out, and what would make it possible."""
    found = []
    if groups is None:
        why = "no model is given that was retrained without the points"
        cure = "train one with 'unlearn train --without-points' and name it with --reference"
        found.append(("which points are memorised, agreement, membership, divergence", why, cure))
    if request.data is None:
        cure = "name the original's data with --data"
        found.append(("accuracy, agreement and membership", "no real test images are given", cure))
    for name, mask in groups.by_name.items() if groups else ():
        if beside is not None and mask.any() and not mask[beside.of].any():
            why = "no test image stands beside them: there is none of a class that retrained models call them"
            found.append((f"agreement and membership of {name} points", why, "name data with more test images"))
    if len(request.references) in (1, 2):
        why = "few retrained models do not show how much they differ"
        found.append(("a comparison with narrow bounds", why, "name at least three, each with --reference"))
    return [{"name": name, "why": why, "cure": cure} for name, why, cure in found]
