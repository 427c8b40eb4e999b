"""State dicts inside the content of a file: which there are, and which one is meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.importing.diagnosis import SAVE_WEIGHTS
from synth.checkpoint.importing.inert import Inert, module_state
from synth.checkpoint.importing.matching import is_average
from synth.checkpoint.importing.weights_file import WeightsFile

# The usual names, most usual first. Others come after them in the order of the file, averages last.
USUAL = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
DEEPEST = 3  # dicts inside dicts
StateDicts = Mapping[str, Mapping[str, Tensor]]


def state_dicts(file: WeightsFile, entry: str | None = None) -> StateDicts:
    """The state dicts in the file by the names of their entries, the likeliest first; the file itself has the name "".

    Values that are not tensors, such as the epoch, are left out. With `entry` there is only that one.

    Raises:
        UserError: the file holds none.
        UsageError: the file has no such entry.
    """
    found = {name: tensors for name, tensors in walk("", file.content, 0) if tensors}
    if not found:
        objects = f"only objects of {', '.join(file.not_loaded[:3])}, which are not loaded" if file.not_loaded else ""
        raise UserError(f"{file.path} holds no state dict{objects and f', {objects}'}: {SAVE_WEIGHTS}")
    ordered = dict(sorted(found.items(), key=lambda item: likelihood(item[0])))
    if entry is not None:
        named = {name: tensors for name, tensors in ordered.items() if entry in (name, name.rpartition(".")[2])}
        if not named:
            raise UsageError(f"{file.path} has no entry '{entry}': it has {', '.join(filter(None, ordered)) or 'none'}")
        return named
    # Last, parts that were saved one by one, such as {"backbone": ..., "head": ...}.
    return ordered if "" in ordered or len(ordered) == 1 else ordered | {"": dict(flattened(file.content))}


def walk(name: str, content: Any, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dict with tensors in the content, and every whole model, by its dotted name."""
    if isinstance(content, Inert):
        state = module_state(content)
        if state:
            yield name, state
            return
        content = vars(content)
    if not isinstance(content, dict):
        return
    texts = [(key, value) for key, value in dict.items(content) if isinstance(key, str)]
    yield name, {key: value.detach() for key, value in texts if isinstance(value, Tensor)}
    if depth < DEEPEST:
        for key, value in texts:
            if not key.startswith("optim"):
                yield from walk(f"{name}.{key}" if name else key, value, depth + 1)


def flattened(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of dicts inside a dict, with dotted names."""
    if isinstance(content, dict) and prefix.count(".") <= DEEPEST:
        for key, value in dict.items(content):
            if isinstance(key, str) and isinstance(value, Tensor):
                yield prefix + key, value.detach()
            elif isinstance(key, str) and not key.startswith("optim"):
                yield from flattened(value, f"{prefix}{key}.")


def likelihood(name: str) -> tuple[bool, int]:
    """The place of an entry among others: the file itself, usual names, other names, averages of the weights."""
    last = name.rpartition(".")[2]
    if not name:
        return False, -1
    return is_average(name), USUAL.index(last) if last in USUAL else len(USUAL)
