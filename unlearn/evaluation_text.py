"""Evaluations as text: a page for a person, JSON or CSV with everything for a program."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence

from synth.basics.tables import shown, table
from unlearn.evaluation import Evaluation
from unlearn.regression import RegressionEvaluation
from unlearn.regression_text import regression_csv, regression_page

Evaluations = Mapping[str, Evaluation]
Either = Mapping[str, Evaluation] | Mapping[str, RegressionEvaluation]  # by the model's name
FEW = 20  # classes of which the page shows all
WORST, CONFUSED, FORGOTTEN = 15, 10, 10  # lines of the page with more classes
LONGEST = 40  # characters of a name on the page with more classes


def evaluation_page(evaluations: Either, class_names: Sequence[str], forget: Sequence[int], model: str) -> str:
    """Both accuracies of every model; for up to 20 classes also those per class, and the model's confusion matrix.

    With more classes it shows the forget classes, the worst of the others, and the pairs that the model confuses most.
    Regressors have a page of their own (`regression_page`).
    """
    evaluations, regressors = by_kind(evaluations)
    if regressors:
        return regression_page(regressors, model)
    pairs = table(
        ["accuracy %", "retain", "forget"],
        [[name, shown(e.retain), shown(e.forget)] for name, e in evaluations.items()],
    )
    parts = matrices if len(class_names) <= FEW else extremes
    head = f"{evaluations[model].images:,} real test images"
    return "\n\n".join([head, pairs, *parts(evaluations, class_names, forget, model)])


def by_kind(evaluations: Either) -> tuple[Evaluations, Mapping[str, RegressionEvaluation]]:
    """Those of classifiers, and those of regressors. One of the two is empty."""
    classifiers = {name: found for name, found in evaluations.items() if isinstance(found, Evaluation)}
    regressors = {name: found for name, found in evaluations.items() if isinstance(found, RegressionEvaluation)}
    return classifiers, regressors


def matrices(evaluations: Evaluations, class_names: Sequence[str], forget: Sequence[int], model: str) -> list[str]:
    """The accuracy per class, and the confusion matrix of the model."""
    confusion = table(
        ["true \\ called", *(name[:6] for name in class_names)],
        [[class_names[c], *map(str, counts)] for c, counts in enumerate(evaluations[model].confusion)],
    )
    per_class = class_table("class", evaluations, labelled(class_names, forget), range(len(class_names)))
    return [per_class, f"confusion: {model}\n{confusion}"]


def extremes(evaluations: Evaluations, class_names: Sequence[str], forget: Sequence[int], model: str) -> list[str]:
    """The forget classes, the worst classes of the others, and the model's most frequent confusions."""
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..." for name in labelled(class_names, forget)]
    accuracy = evaluations[model].per_class
    seen = [c for c in range(len(names)) if c not in forget and accuracy[c] is not None]
    worst = sorted(seen, key=lambda c: (accuracy[c], c))[:WORST]
    pairs = [
        (count, true, called)
        for true, counts in enumerate(evaluations[model].confusion)
        for called, count in enumerate(counts)
        if count and called != true
    ]
    most = sorted(pairs, key=lambda pair: (-pair[0], *pair[1:]))[:CONFUSED]
    confused = table(["true", "called", "images"], [[names[t], names[p], f"{n:,}"] for n, t, p in most])
    return [
        class_table("forget classes", evaluations, names, forget[:FORGOTTEN]),
        class_table(f"worst of the {len(seen):,} other classes", evaluations, names, worst),
        f"most confused pairs: {model}\n{confused}",
        "--out FILE.csv or FILE.json writes all classes",
    ]


def class_table(title: str, evaluations: Evaluations, names: Sequence[str], classes: Sequence[int]) -> str:
    """The accuracy of each model on each of the classes."""
    rows = [[names[c], *(shown(e.per_class[c]) for e in evaluations.values())] for c in classes]
    return table([title, *evaluations], rows)


def labelled(class_names: Sequence[str], forget: Sequence[int]) -> list[str]:
    """The class names, with a note on the forget classes."""
    return [name + (" (forget)" if c in forget else "") for c, name in enumerate(class_names)]


def evaluation_json(evaluations: Either, class_names: Sequence[str], forget: Sequence[int]) -> str:
    """The evaluations by model, with the class names and the forget classes that they refer to."""
    content = {
        "forget": list(forget),
        "class_names": list(class_names),
        "models": {name: dataclasses.asdict(e) for name, e in evaluations.items()},
    }
    return json.dumps(content)


def evaluation_csv(evaluations: Either, class_names: Sequence[str], forget: Sequence[int]) -> str:
    """One row per model, class and answer that the model gave; right answers are there even if they are 0 images.

    Of regressors it is one row per model and image.
    """
    evaluations, regressors = by_kind(evaluations)
    if regressors:
        return regression_csv(regressors)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "class", "class_name", "forget", "called", "called_name", "images", "share"])
    for name, e in evaluations.items():
        for true, counts in enumerate(e.confusion):
            seen = sum(counts)
            for called, count in enumerate(counts):
                if seen and (count or called == true):
                    share = f"{count / seen:.6f}"
                    row = [
                        name,
                        true,
                        class_names[true],
                        int(true in forget),
                        called,
                        class_names[called],
                        count,
                        share,
                    ]
                    writer.writerow(row)
    return text.getvalue()
