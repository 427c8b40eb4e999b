"""Synthesis methods, one per file. A method's file has

    SETTINGS                      its settings, a dataclass with a default for each field
    PRESETS                       other settings to start from, by name
    THUMBNAIL_PRESETS             optional: the same for small photographs, with the default as `tuned` (presets.py)
    PHOTO_PRESETS                 optional: the same for photographs
    check(teacher, settings)      raises UserError where the method can't work on the teacher
    instead(teacher, settings) -> str             optional: a line about a teacher for which the method works otherwise
    uses_generator(settings)      whether `prepare` trains a generator
    uses_student(settings)        optional: whether a student changes the images; then `synthesise` takes `student`, too
    training_words(teacher, settings, device) -> str    optional: how much `prepare` trains, and about how long
    prepare(teacher, settings, seed, student, classes) -> ClassGenerator | None
                                  runs once per run, before all shards; `student` is a Classifier or None; the generator
                                  can draw no class but `classes` (None means all of the teacher's)
    brief(settings, images)       optional: the settings of one step on this many images. With it the batch is
                                  measured, and halved where the memory will not hold it
    synthesise(teacher, labels_B, settings, rng, network) -> uint8 images (B, C, H, W)
                                  makes one image per label, on the teacher's device

`rng` is a torch.Generator on the CPU and the only source of randomness. `network` is what `prepare` returned. No call
depends on an earlier one. Other packages add a method by an entry point in the group below (docs/extending.md).
"""

from synth.basics.plugins import Plugins

METHODS = Plugins(
    kind="synthesis method",
    package="synth.methods",
    own=("deepinversion", "fast", "generator"),
    group="data_free_unlearning.synthesis_methods",
)
find = METHODS.find
