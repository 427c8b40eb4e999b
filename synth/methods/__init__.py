"""Synthesis methods, one a file. Each file has the functions

    check(teacher: Classifier, settings) -> None, which raises UserError where the method can't work on the teacher,
    uses_generator(settings) -> bool, whether there is something to prepare,
    prepare(teacher, settings, seed, student: Classifier | None) -> ClassGenerator | None, trained once a run, before all shards,
    synthesise(teacher, labels_B: LongTensor, settings, generator: torch.Generator, network) -> uint8 (B, C, H, W),

the last of which makes one image for each label on the teacher's device. `generator` is a CPU generator and the only
randomness; `network` is what `prepare` returned. Nothing is carried from one call to the next.
"""

from importlib import import_module
from typing import Any

METHODS = {
    "deepinversion": "synth.methods.deepinversion",
    "fast": "synth.methods.fast",
    "generator": "synth.methods.generator",
}


def find(name: str) -> Any:
    """The module of a method."""
    return import_module(METHODS[name])
