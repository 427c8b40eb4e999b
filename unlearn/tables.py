"""Evaluations as text: tables for a terminal, JSON for a program."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from synth.basics.tables import shown, table
from unlearn.evaluate import Evaluation


def evaluation_tables(evaluations: Mapping[str, Evaluation], class_names: Sequence[str], forget: Sequence[int]) -> str:
    """The accuracy pair of every model, accuracy per class, and the unlearned model's confusion matrix."""
    names = list(evaluations)
    pairs = table(
        ["accuracy %", "retain", "forget"],
        [[name, shown(e.retain), shown(e.forget)] for name, e in evaluations.items()],
    )
    per_class = table(
        ["class", *names],
        [
            [
                class_names[c] + (" (forget)" if c in forget else ""),
                *(shown(evaluations[n].per_class[c]) for n in names),
            ]
            for c in range(len(class_names))
        ],
    )
    confusion = table(
        ["true \\ called", *(name[:6] for name in class_names)],
        [[class_names[c], *map(str, counts)] for c, counts in enumerate(evaluations["unlearned"].confusion)],
    )
    images = evaluations["unlearned"].images
    return f"{images:,} real test images\n\n{pairs}\n\n{per_class}\n\nconfusion of the unlearned model\n{confusion}"


def evaluation_json(evaluations: Mapping[str, Evaluation], class_names: Sequence[str], forget: Sequence[int]) -> str:
    content = {
        "forget": list(forget),
        "class_names": list(class_names),
        "models": {name: dataclasses.asdict(e) for name, e in evaluations.items()},
    }
    return json.dumps(content, indent=1)
