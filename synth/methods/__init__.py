"""Synthesis methods, one a file. Each file has a function

    synthesise(teacher: Classifier, labels_B: LongTensor, settings, generator: torch.Generator) -> uint8 (B, C, H, W)

that makes one image for each label on the teacher's device. `generator` is a CPU generator and the only randomness.
"""

from importlib import import_module
from typing import Any

METHODS = {"deepinversion": "synth.methods.deepinversion"}


def find(name: str) -> Any:
    """The module of a method."""
    return import_module(METHODS[name])
