"""Unlearning without the training data: shards in, a student and a report out. Never needs Ray.

`unlearn.distill(...)`, `unlearn.evaluate(...)`, `unlearn.audit(...)` and the other calls of `unlearn.api` are the
commands from Python.
"""

from importlib import import_module
from typing import Any

__all__ = ["audit", "distill", "evaluate", "export", "import_checkpoint", "train", "unlearn"]


def __getattr__(name: str) -> Any:
    """The calls of `unlearn.api`, which is loaded when one of them is used."""
    if name in __all__:
        return getattr(import_module("unlearn.api"), name)
    raise AttributeError(f"module 'unlearn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
