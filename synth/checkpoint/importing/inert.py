"""Read a pickled PyTorch file without running anything that it names.

Many files hold more than weights: a whole model, an optimiser, the options of the training. Their classes may not exist
here, and loading them runs code that the file chooses. Here each of them becomes an `Inert` object, which only keeps
its attributes. Tensors and dicts are read as usual. So no code of the file is needed, and none runs.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

# All that a file may call. They make containers, and tensors from bytes of the file.
ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("__builtin__", "set"): set,  # the name of Python 2, which torch's pickles use
    ("builtins", "set"): set,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}
MOST_TENSORS = 100_000  # of one model
DEEPEST = 100  # modules inside modules


class Inert:
    """Stands for an object of a class that is not loaded. It accepts every call, and keeps its attributes."""

    dump_patches = False  # torch asks old models for it

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return self

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) == 2:  # of a class with slots
            state = state[0] or state[1]
        if isinstance(state, dict):
            self.__dict__ = {name: value for name, value in dict.items(state) if isinstance(name, str)}

    def __setitem__(self, key: Any, value: Any) -> None:  # of a class that is a dict
        pass

    def append(self, value: Any) -> None:  # of a class that is a list
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:  # of a class that is a set
        pass


def load_inert(data: bytes) -> tuple[Any, list[str]]:
    """The content of a file, with `Inert` objects, and the names of the classes and functions that were not loaded.

    `data` is neither TorchScript nor a tar archive: torch would read these in other ways. Raises any error for bytes
    that `torch.save` did not write.
    """
    replaced: dict[str, type[Inert]] = {}

    # The unpickler in C makes memory for a list as long as any number in the file; that in Python has a dict.
    class Unpickler(pickle._Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in ALLOWED:
                return ALLOWED[module, name]
            if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            full = f"{module}.{name}"
            return replaced.setdefault(full, type(full, (Inert,), {}))

    def load(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    reader = SimpleNamespace(Unpickler=Unpickler, load=load, __name__="inert")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes whose source code is not there
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False, pickle_module=reader)
    return content, sorted(replaced)


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
