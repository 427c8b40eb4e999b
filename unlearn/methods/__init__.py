"""Unlearning methods, one per file. None of them reads a real image but points to forget. A method's file has

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
    FORGETS_POINTS = True                it can leave out what is near single points (`Inputs.points`; the samples of
                                         shards are filtered before it gets them)
    needs_monitor(settings)              the error for a run without the monitor; None if it can run without
    NEEDS_TEACHER = False                it learns from shards only, also as they come (`Stream.provide_for`), and has
                                         these three as well:
    LOOP                                 the settings of its loop, which has no monitor
    fill_in(settings, run, floor, say, images, teacher, forget)
                                         the settings with everything decided that depends on the runs of shards, which
                                         have this number of images, on whether the teacher is at hand, and on the
                                         classes or the range to forget
    FILLED_IN = ("shift",)               the names of these settings
    MAY_USE_TEACHER = True               and it does something with the teacher's checkpoint if that is given
    PRESET_OF_START = "fine-tuning"      its students may start from public weights (`Inputs.public`), with this preset

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


def forgets_points(method: Any) -> bool:
    """Whether a method, or what it declares, can forget single points."""
    return bool(getattr(method, "FORGETS_POINTS", False))


def why_monitor(method: Any, settings: Any) -> str | None:
    """Why the method cannot run without the monitor; None if it can."""
    return method.needs_monitor(settings) if hasattr(method, "needs_monitor") else None
