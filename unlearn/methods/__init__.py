"""Unlearning methods, one per file. None of them reads a real image. A method's file has

    HELP                                 one or two sentences for `unlearn METHOD --help`
    SETTINGS                             its settings, a dataclass with a default for each field
    PRESETS                              other settings to start from, by name
    STARTS_FROM_TEACHER                  whether its student is a copy of the teacher, and of its architecture
    trains_on_shards(settings)           whether it learns from shards; otherwise shards serve the monitor only
    training_filters(forget, settings)   the filters that drop samples before training, if it learns from shards; the
                                         others come batch by batch from `Inputs.samples`, which is among its `parts`
    start(inputs, settings)              the method at work (`unlearn.methods.method.Method`)

and may have

    IDLE                                 settings that have no effect beside others (`unlearn.settings.Idle`)
    needs_monitor(settings)              the error for a run without the monitor; None if it can run without
    NEEDS_TEACHER = False                it learns from shards only, also as they come (`Stream.provide_for`), and has
                                         these three as well:
    LOOP                                 the settings of its loop, which has no monitor
    fill_in(settings, run, floor, say, forget)
                                         the settings with everything decided that depends on the run of shards
    FILLED_IN = ("shift",)               the names of these settings

Other packages add a method by an entry point in the group below (docs/extending.md).
"""

from typing import Any

from synth.basics.plugins import Plugins

METHODS = Plugins(
    kind="unlearning method",
    package="unlearn.methods",
    own=("distill", "gkt", "ispf", "adaptive", "emmn", "edit"),
    group="data_free_unlearning.unlearning_methods",
)
find = METHODS.find


def needs_teacher(method: Any) -> bool:
    """Whether a method, or what it declares, needs the teacher's checkpoint."""
    return bool(getattr(method, "NEEDS_TEACHER", True))


def why_monitor(method: Any, settings: Any) -> str | None:
    """Why the method cannot run without the monitor; None if it can."""
    return method.needs_monitor(settings) if hasattr(method, "needs_monitor") else None
