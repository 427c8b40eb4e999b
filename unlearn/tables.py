"""Evaluations as text: tables for a person, JSON for a program."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from synth.basics.tables import shown, table
from unlearn.evaluate import Evaluation


def evaluation_tables(evaluations: Mapping[str, Evaluation], class_names: Sequence[str], forget: Sequence[int]) -> str:
    """Both accuracies of every model, the accuracy per class, and the confusion matrix of the `unlearned` model."""
    names = list(evaluations)
    pairs = table(
        ["accuracy %", "retain", "forget"],
        [[name, shown(e.retain), shown(e.forget)] for name, e in evaluations.items()],
    )
    per_class = table(
        ["class", *names],
        [
            [label, *(shown(evaluations[name].per_class[c]) for name in names)]
            for c, label in enumerate(labelled(class_names, forget))
        ],
    )
    confusion = table(
        ["true \\ called", *(name[:6] for name in class_names)],
        [[class_names[c], *map(str, counts)] for c, counts in enumerate(evaluations["unlearned"].confusion)],
    )
    images = evaluations["unlearned"].images
    return f"{images:,} real test images\n\n{pairs}\n\n{per_class}\n\nconfusion of the unlearned model\n{confusion}"


def labelled(class_names: Sequence[str], forget: Sequence[int]) -> list[str]:
    """The class names, with a note on the forget classes."""
    return [name + (" (forget)" if c in forget else "") for c, name in enumerate(class_names)]


def evaluation_json(evaluations: Mapping[str, Evaluation], class_names: Sequence[str], forget: Sequence[int]) -> str:
    """The evaluations by model, with the class names and the forget classes that they refer to."""
    content = {
        "forget": list(forget),
        "class_names": list(class_names),
        "models": {name: dataclasses.asdict(e) for name, e in evaluations.items()},
    }
    return json.dumps(content, indent=1)
