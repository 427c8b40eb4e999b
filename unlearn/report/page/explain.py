"""The report's standing words: limitations, the rules, and each measure's definition as its file has it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from unlearn.audit.judgement import verdict
from unlearn.audit.measures import modules
from unlearn.audit.record.record import on_synthetic

LIMITATIONS = (
    "A measure that finds nothing does not prove that nothing is there: a stronger attack may find it.",
    "The target is a model retrained without the class, not zero: such a model tells the class's features apart as well, because "
    "classes share them.",
    "The retrained model's interval is only as good as the number of retrained models: three show little of how much "
    "retrainings differ, and their interval is wide.",
    "With some twenty intervals of 95 %, a model like the retrained one falls outside of one now and then: read which, and "
    "by how much.",
    "The masked logit and the randomly initialised model are marks on the scale, not opponents: a real one would try more.",
    "Hashes say that files are the same ones as then. They say nothing about forgetting.",
    "Relearning faster than a retrained model, or a probe above its, need not be knowledge of the class: a random network may do "
    "both. Its value stands beside.",
    "Of several forget classes, probe, relearning, transplant and resurrection have the one of which most is left; accuracy, "
    "membership and distances are of all of them together.",
    "What anybody saved, logged or published of the original's outputs is beyond this report.",
)


def limits_of(record: Mapping[str, Any]) -> list[str]:
    """What this record in particular can't say."""
    found = []
    if not record["ledger"]:
        found.append("No real image was looked at.")
    if on_synthetic(record):
        found.append(
            "Values on synthetic images are proxies: they tell how the model answers to what the original dreamt of, and the "
            "student may have learnt from those of the retain classes. They are images that the original calls by their class, "
            "so that it is right on all of them by choice."
        )
    if not record["models"]["references"]:
        found.append("No retrained model was given: nothing here says what forgetting would look like for these data.")
    if len(record["models"]["references"]) == 1:
        found.append(
            "One retrained model was given: the spread of its repeats stands in for the spread between retrainings."
        )
    return found


def rules() -> str:
    return inspect.cleandoc(verdict.__doc__ or "")


def definitions() -> list[tuple[str, str]]:
    return [(name, inspect.cleandoc(module.__doc__)) for name, module in modules().items()]
