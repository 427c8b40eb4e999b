"""Unlearning methods, one per file. None of them reads a real image. A method's file has

    HELP                                 one or two sentences for `unlearn METHOD --help`
    SETTINGS                             its settings, a dataclass with a default for each field
    PRESETS                              other settings to start from, by name
    IDLE                                 settings that have no effect beside others (`unlearn.settings.Idle`); may be missing
    STARTS_FROM_TEACHER                  whether its student is a copy of the teacher, and of its architecture
    trains_on_shards(settings)           whether it learns from shards; otherwise shards serve the monitor only
    training_filters(forget, settings)   the filters that drop samples before training, if it learns from shards
    start(inputs, settings)              the method at work (`unlearn.methods.method.Method`)

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
