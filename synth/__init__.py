"""Data synthesis: from a checkpoint to WebDataset shards. `synth.generate(...)` and `synth.recognise(...)` are the
commands from Python.

The package imports nothing by itself, so that `unlearn` can use parts of it without Ray.
"""

from importlib import import_module
from typing import Any

__all__ = ["generate", "recognise"]


def __getattr__(name: str) -> Any:
    """The calls of `synth.api`, which is loaded when one of them is used."""
    if name in __all__:
        return getattr(import_module("synth.api"), name)
    raise AttributeError(f"module 'synth' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
