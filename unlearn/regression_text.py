"""Evaluations of regressors as text: a page for a person, or CSV with every prediction for a program."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from synth.basics.tables import table
from unlearn.regression import Errors, RegressionEvaluation, distance

Evaluations = Mapping[str, RegressionEvaluation]  # by the model's name
REFERENCE = "retrained"


def regression_page(evaluations: Evaluations, model: str) -> str:
    """Error, likelihood and coverage of every model on both ranges; and how far its predictions inside the forget range
    are from those of the retrained model, if there is one.
    """
    shown = evaluations[model]
    columns = ["mean absolute error", "-log likelihood", "90 % interval covers %"]
    parts = [
        table(
            [f"{name} range", *columns],
            [[each, *cells(getattr(found, name))] for each, found in evaluations.items()],
        )
        for name in ("retain", "forget")
    ]
    parts += distances(evaluations)
    return "\n\n".join([f"{shown.images:,} real test images; {shown.target.words}", *parts])


def cells(errors: Errors | None) -> list[str]:
    if errors is None:
        return ["-"] * 3
    return [f"{errors.mae:.2f}", f"{errors.nll:.2f}", f"{errors.coverage:.1f}"]


def distances(evaluations: Evaluations) -> list[str]:
    """A table of the Wasserstein distances to the retrained model's predictions inside the forget range."""
    reference = evaluations.get(REFERENCE)
    if reference is None or not reference.predictions_inside:
        return []
    rows = [
        [name, f"{distance(found.predictions_inside, reference.predictions_inside):.2f}"]
        for name, found in evaluations.items()
        if name != REFERENCE
    ]
    return [table(["inside the forget range", "Wasserstein distance to retrained"], rows)]


def regression_csv(evaluations: Evaluations) -> str:
    """One row per model and image: target, prediction, and whether the target is in the forget range."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "target", "prediction", "forget"])
    for name, found in evaluations.items():
        for target, prediction, inside in zip(found.targets, found.predictions, found.forgotten, strict=True):
            writer.writerow([name, f"{target:.6g}", f"{prediction:.6g}", int(inside)])
    return text.getvalue()
