"""Keeping the teacher's early layers: EU-k, exact unlearning of the last k layers (Goel et al. 2022).

The student's layers up to a named one are the teacher's and are not trained. All later ones start anew and are trained
without the class. What the early layers know of the class stays in the student.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from synth.basics.errors import UsageError
from synth.checkpoint.batch_norm import BatchNorm
from synth.checkpoint.classifier import Classifier, untouched
from synth.checkpoint.public_start import head_keys

MOST_NAMED = 40  # layers in an error


@torch.no_grad()
def keep_layers(student: Classifier, teacher: Classifier, name: str) -> list[nn.Module]:
    """Copy the teacher's layers up to and including the one called `name`, and freeze them. Returns the modules of
    which every part is kept.

    Layers come in the order of the forward pass. A layer that runs beside the named one, as a shortcut may, is kept if
    it begins before the named one ends.

    Raises:
        UsageError: the student has another architecture, there is no such layer, or no layer is left to train.
    """
    ours, theirs = student.card, teacher.card
    if (ours.architecture, ours.width) != (theirs.architecture, theirs.width):
        raise UsageError(
            f"--keep-layers copies layers of the teacher, a {theirs.architecture}, but the student is a "
            f"{ours.architecture}: leave out --student-arch and --student-width"
        )
    kept = layers_until(student, name)
    keys = {f"{path}.{key}" if path else key for path in kept for key in own_weights(student.net, path)}
    if not set(dict(student.net.named_parameters())) - keys - head_keys(student) or keys & head_keys(student):
        refuse_last(student, name)
    taken, state = teacher.net.state_dict(), student.net.state_dict()
    student.net.load_state_dict({key: taken[key] if key in keys else value for key, value in state.items()})
    for path in kept:
        for weight in student.net.get_submodule(path).parameters(recurse=False):
            weight.requires_grad_(False)
    return [student.net.get_submodule(path) for path in whole_layers(student, name)]


def whole_layers(model: Classifier, name: str) -> list[str]:
    """The paths of the kept modules of which every part is kept, if the layers up to and including `name` are."""
    kept, every = layers_until(model, name), [path for path, _ in model.net.named_modules()]
    return [path for path in kept if path and all(part in kept for part in every if part.startswith(f"{path}."))]


def layer_at(model: Classifier, name: str) -> str:
    """The layer that a share such as 60% names: the one that ends nearest to this share of the forward pass, counted in
    calls of modules, or the batch norm that follows it. Any other name is returned unchanged.

    Raises UsageError unless 0 < share < 100.
    """
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?%", name):
        return name
    share = float(name[:-1]) / 100
    if not 0 < share < 1:
        raise UsageError(f"--keep-layers {name} keeps none or all of the layers: name a share between, such as 60%")
    begun, ended = order_of_calls(model)
    nearest = min(choices(model, ended), key=lambda path: abs(ended[path] - share * max(ended.values())))
    following = [path for path, when in begun.items() if when == ended[nearest] + 1]
    # A batch norm that starts anew would not know the maps of a convolution that is kept.
    return next((path for path in following if isinstance(model.net.get_submodule(path), BatchNorm)), nearest)


def refuse_last(student: Classifier, name: str) -> None:
    """Raise UsageError: with `name` kept, nothing is left to train but at most the last layer, which holds no class."""
    raise UsageError(
        f"--keep-layers {name} keeps every layer before the last one, so nothing of the features is trained anew: name "
        f"an earlier layer, of {named(student)}; to train only the last layer, use 'unlearn edit --kind last-layer'"
    )


def own_weights(net: nn.Module, path: str) -> Iterator[str]:
    """The names of a module's own parameters and saved buffers, without those of its parts."""
    module = net.get_submodule(path)
    yield from (key for key, _ in module.named_parameters(recurse=False, remove_duplicate=False))
    saved = module.state_dict().keys()
    yield from (key for key, _ in module.named_buffers(recurse=False) if key in saved)


def layers_until(model: Classifier, name: str) -> list[str]:
    """The paths of the modules whose forward pass begins before that of the module `name` ends.

    Modules that a network has but does not call belong to the module that contains them.

    Raises UsageError if the network does not call a module of this name. The error names those that it calls.
    """
    begun, ended = order_of_calls(model)
    if name not in ended or not name:
        close = difflib.get_close_matches(name, [path for path in ended if path], n=3)
        nearest = f"; the nearest names are {', '.join(close)}" if close else ""
        raise UsageError(f"{model.card.architecture} has no layer '{name}'{nearest}: choose one of {named(model)}")
    last = ended[name]
    kept = []
    for path, _ in model.net.named_modules():
        owner = path
        while owner not in begun:
            owner = owner.rpartition(".")[0]
        whole = owner == path or ended[owner] <= last
        if begun[owner] < last and whole:
            kept.append(path)
    return kept


@torch.no_grad()
def order_of_calls(model: Classifier) -> tuple[dict[str, int], dict[str, int]]:
    """When the first forward pass of each module begins, and when it ends, as numbers in one order."""
    begun: dict[str, int] = {}
    ended: dict[str, int] = {}
    with watching_calls(model.net, begun, ended), untouched(model.net):
        model(torch.zeros(2, *model.card.input_shape, device=model.mean.device))
    return begun, ended


@contextmanager
def watching_calls(net: nn.Module, begun: dict[str, int], ended: dict[str, int]) -> Iterator[None]:
    """Note the calls of all modules inside the `with` block."""

    def note(into: dict[str, int], path: str) -> None:
        into.setdefault(path, len(begun) + len(ended))

    with ExitStack() as stack:
        for path, module in net.named_modules():
            before = module.register_forward_pre_hook(lambda *given, path=path: note(begun, path))
            after = module.register_forward_hook(lambda *given, path=path: note(ended, path))
            stack.callback(before.remove)
            stack.callback(after.remove)
        yield


def named(model: Classifier) -> str:
    """The layers that may be kept, in words."""
    _, ended = order_of_calls(model)
    chosen = choices(model, ended)
    more = len(chosen) - MOST_NAMED
    return ", ".join(chosen[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "") + ", or a share such as 60%"


def choices(model: Classifier, ended: Mapping[str, int]) -> list[str]:
    """The layers that may be kept, in the order in which they `ended`: only the outer ones where there are many."""
    heads = {key.rpartition(".")[0] for key in head_keys(model)}
    weighted = [
        path
        for path, _ in sorted(ended.items(), key=lambda item: item[1])
        if path and path not in heads and any(True for _ in model.net.get_submodule(path).parameters())
    ]
    for depth in range(max((path.count(".") for path in weighted), default=0), -1, -1):
        chosen = [path for path in weighted if path.count(".") <= depth]
        if len(chosen) <= MOST_NAMED:
            break
    return chosen
