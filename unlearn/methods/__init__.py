"""Unlearning methods, one per file. None of them reads a real image. A method's file has

    HELP                                 one or two sentences for `unlearn METHOD --help`
    SETTINGS                             its settings, a dataclass with a default for each field
    PRESETS                              other settings to start from, by name
    IDLE                                 settings that have no effect beside others (`unlearn.settings.Idle`); may be missing
    NEEDS_TEACHER                        whether it needs the teacher's checkpoint. If not, it learns from shards only, as
                                         they come (`Inputs.pools`), and has `fill_in` and `LOOP` as well
    STARTS_FROM_TEACHER                  whether its student is a copy of the teacher, and of the teacher's architecture
    trains_on_shards(settings)           whether it learns from shards; the other methods use shards for the monitor only
    training_filters(forget, settings)   the filters that drop what it does not learn from, if it learns from shards
    needs_monitor(settings)              the error for a run without the monitor; None if the method can run without it
    start(inputs, settings)              the method at work (`unlearn.methods.method.Method`)

    fill_in(settings, run)               the settings with everything decided that depends on the run of shards
    LOOP                                 the settings of its loop, which has no monitor

Other packages add a method by an entry point in the group below (docs/extending.md).
"""

from synth.basics.plugins import Plugins

METHODS = Plugins(
    kind="unlearning method",
    package="unlearn.methods",
    own=("distill", "gkt", "ispf", "adaptive", "emmn", "edit"),
    group="data_free_unlearning.unlearning_methods",
)
find = METHODS.find
