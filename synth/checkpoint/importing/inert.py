"""Read a pickled PyTorch file without running anything that it names.

Many files hold more than weights: a whole model, an optimiser, the options of the training. Their classes may not exist
here, and loading them runs code that the file chooses. Here each of them becomes an `Inert` object, which only keeps
its attributes, and torch's own restricted unpickler (`weights_only`) reads the rest. So no code of the file is needed,
and none runs.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor

MOST_TENSORS = 100_000  # of one model
DEEPEST = 100  # modules inside modules


class Inert:
    """Stands for an object of a class that is not loaded. It keeps its attributes, and nothing else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2:  # of a class with slots
            state = state[0] or state[1]
        if isinstance(state, dict):
            self.__dict__ = {name: value for name, value in dict.items(state) if isinstance(name, str)}


def load_inert(data: bytes) -> tuple[Any, list[str]]:
    """The content of a file, with `Inert` objects, and the names of the classes and functions that were not loaded.

    Raises any error for bytes that `torch.save` did not write, for whole models from before torch 1.6, and for objects
    that are more than their attributes, such as those of a class that is a dict.
    """
    made: set[str] = set()
    names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    with torch.serialization.safe_globals([stand_in(name, made) for name in names]):
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return content, sorted(made)


def stand_in(full_name: str, made: set[str]) -> type[Inert]:
    """A class under whose name the unpickler finds `Inert`. An object of it adds the name to `made`."""
    module, _, name = full_name.rpartition(".")

    def new(cls: type[Inert], *args: Any, **kwargs: Any) -> Inert:
        made.add(full_name)
        return object.__new__(cls)

    return type(name, (Inert,), {"__module__": module, "__qualname__": name, "__new__": new})


def module_state(module: Inert) -> dict[str, Tensor]:
    """The state dict of a whole model that was read inertly; empty if the object is not a model."""
    state: dict[str, Tensor] = {}
    pending: list[tuple[tuple[str, ...], Any]] = [((), module)]
    while pending:
        path, part = pending.pop()
        attributes = vars(part) if isinstance(part, Inert) else {}
        left_out = attributes.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            for name, value in entries(attributes.get(kind)):
                if isinstance(value, Tensor) and not (
                    kind == "_buffers" and isinstance(left_out, set) and name in left_out
                ):
                    state[".".join((*path, name))] = value.detach()
        if len(path) < DEEPEST and len(state) < MOST_TENSORS and len(pending) < MOST_TENSORS:
            pending += reversed([((*path, name), child) for name, child in entries(attributes.get("_modules"))])
    return state


def entries(mapping: Any) -> list[tuple[str, Any]]:
    return [entry for entry in dict.items(mapping) if isinstance(entry[0], str)] if isinstance(mapping, dict) else []
