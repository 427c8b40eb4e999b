"""Unlearning methods, one per file. None of them reads a real image.

A method's file has

    NEEDS_TEACHER                        whether it needs the teacher's checkpoint. If not, it learns from shards only, as
                                         they come (`Inputs.pools`), and has `fill_in` and `LOOP` as well.
    STARTS_FROM_TEACHER                  whether its student is a copy of the teacher, and of the teacher's architecture
    trains_on_shards(settings)           whether it learns from shards; the other methods use shards for the monitor only
    training_filters(forget, settings)   the filters that drop what it does not learn from, if it learns from shards
    needs_monitor(settings)              the error for a run without the monitor; None if the method can run without it
    start(inputs, settings)              the method at work, for `unlearn.run.loop.run_method`

    fill_in(settings, run)               the settings with everything decided that depends on the run of shards
    LOOP                                 the settings of its loop, which has no monitor
"""

from importlib import import_module
from typing import Any

METHODS = {
    "adaptive": "unlearn.methods.adaptive",
    "distill": "unlearn.methods.distill",
    "edit": "unlearn.methods.edit",
    "emmn": "unlearn.methods.emmn",
    "gkt": "unlearn.methods.gkt",
    "ispf": "unlearn.methods.ispf",
}


def find(name: str) -> Any:
    """The module of a method."""
    return import_module(METHODS[name])
