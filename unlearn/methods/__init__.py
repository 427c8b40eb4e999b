"""Unlearning methods, one a file. None of them reads a real image.

Besides `distill`, which reads shards as they come, a method's file has

    STARTS_FROM_TEACHER                  whether its student is a copy of the teacher, and of its architecture
    trains_on_shards(settings)           whether it learns from shards; the others use shards for the monitor alone
    training_filters(forget, settings)   the filters that drop what it doesn't learn from, if it learns from shards
    start(inputs, settings)              the method at work, for `unlearn.loop.run_method`
"""

from importlib import import_module
from typing import Any

METHODS = {
    "adaptive": "unlearn.methods.adaptive",
    "baseline": "unlearn.methods.edits",
    "emmn": "unlearn.methods.emmn",
    "gkt": "unlearn.methods.gkt",
    "ispf": "unlearn.methods.ispf",
}


def find(name: str) -> Any:
    """The module of a method."""
    return import_module(METHODS[name])
