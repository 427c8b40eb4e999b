"""A network that the user's own code builds: `module:function`, with any of the usual signatures."""

from __future__ import annotations

import copy
import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from typing import Any

from torch import nn

from synth.basics.errors import UsageError, first_line

OWN_CODE: ContextVar[str | None] = ContextVar("OWN_CODE", default=None)  # the folder of the user's own code
# Names that people give to these parameters.
CLASSES = (
    *("num_classes", "n_classes", "nb_classes", "num_class", "n_class", "nclasses", "nclass", "class_num"),
    *("classes", "num_labels", "n_labels", "num_outputs", "n_outputs", "out_features", "out_dim", "output_dim"),
)
CHANNELS = (
    *("in_channels", "in_chans", "in_ch", "in_channel", "input_channels", "num_channels", "n_channels", "num_chans"),
    *("channels", "nchannels", "channels_in", "in_c", "img_channels", "image_channels"),
)
HOW_TO_WRITE = "write a function of your own, such as 'def net(num_classes): return YourNet(...)'"
Call = tuple[tuple[Any, ...], dict[str, Any]]


def users_own(architecture: str, in_channels: int, num_classes: int) -> nn.Module:
    """The network that the function named `module:function` builds. Only the user may name it, never a file.

    The function is called once. It may take (in_channels, num_classes) by position, or the number of classes and of
    channels under one of the usual names, or nothing where both are fixed; a class is called like a function, and a
    network that the module holds is copied. Raises UsageError where the function cannot be found or called.
    """
    module_name, _, function_name = architecture.partition(":")
    with folder_searched_last(OWN_CODE.get() or os.getcwd()):
        try:
            function: Any = reduce(getattr, function_name.split("."), importlib.import_module(module_name))
        except Exception as error:  # the user's module may raise anything
            raise UsageError(
                f"cannot find the architecture '{architecture}' ({type(error).__name__}: {error}): correct the module, "
                "put its folder on PYTHONPATH, or name another"
            ) from error
        if isinstance(function, nn.Module):
            return copy.deepcopy(function)
        positional, named = call_for(architecture, function, in_channels, num_classes)
        try:
            net = function(*positional, **named)
        except Exception as error:
            raise UsageError(
                f"the architecture '{architecture}', called with {in_words((positional, named))}, failed: "
                f"{first_line(error)}: correct it, or {HOW_TO_WRITE}"
            ) from error
    if not isinstance(net, nn.Module):
        raise UsageError(f"the architecture '{architecture}' made a {type(net).__name__}, not a torch.nn.Module")
    return net


def call_for(architecture: str, function: Any, in_channels: int, num_classes: int) -> Call:
    """The arguments for the user's function, by the names of its parameters.

    Raises UsageError, with the line to write, if it has parameters that have no value here.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a function of C without a signature
        return (in_channels, num_classes), {}
    values = dict.fromkeys(CLASSES, num_classes) | dict.fromkeys(CHANNELS, in_channels) | {"pretrained": False}
    plain = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and not is_a_width(p)]
    if not plain and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return (in_channels, num_classes), {}
    known = [p.name for p in plain if p.name in values]
    unknown = [p for p in plain if p.name not in values and p.default is p.empty]
    has = {"classes": any(name in CLASSES for name in known), "channels": any(name in CHANNELS for name in known)}
    takes_anything = {p.kind for p in parameters} & {inspect.Parameter.VAR_KEYWORD}
    if takes_anything and not unknown and not has["classes"]:
        return (), {name: values[name] for name in known} | {"num_classes": num_classes}
    left = [number for name, number in (("channels", in_channels), ("classes", num_classes)) if not has[name]]
    if len(unknown) == 1 and len(left) == 2:
        left = left[1:]  # the only thing that a function must be told is the number of classes
    if len(unknown) > len(left) or any(p.kind is p.KEYWORD_ONLY for p in unknown):
        raise UsageError(
            f"the architecture '{architecture}' takes ({', '.join(p.name for p in plain)}), of which only the numbers "
            f"of channels and classes are known here: {HOW_TO_WRITE}, save it in mynet.py, and name it --arch mynet:net"
        )
    guessed = dict(zip((p.name for p in unknown), left, strict=False))
    return arranged(plain, {name: values[name] for name in known} | guessed)


def is_a_width(parameter: inspect.Parameter) -> bool:
    """Whether a parameter such as `channels=64` means the network's width, not the colours of an image."""
    return parameter.name in CHANNELS and parameter.default not in (parameter.empty, 1, 3)


def arranged(plain: list[inspect.Parameter], given: dict[str, Any]) -> Call:
    """The given values: by position up to the first parameter with a known name, the others by name."""
    positional: list[Any] = []
    for parameter in plain:
        named = parameter.name in CLASSES + CHANNELS + ("pretrained",)
        if parameter.name not in given or (named and parameter.kind is not parameter.POSITIONAL_ONLY):
            break
        positional.append(given[parameter.name])
    rest = {p.name: given[p.name] for p in plain[len(positional) :] if p.name in given}
    return tuple(positional), rest


def in_words(call: Call) -> str:
    """`(1, 10) for channels and classes`, or `num_classes=10`."""
    positional, named = call
    words = ", ".join([*map(repr, positional), *(f"{name}={value!r}" for name, value in named.items())])
    return f"({words}) for channels and classes" if len(positional) == 2 and not named else f"({words})"


@contextmanager
def own_code_in(folder: str) -> Iterator[None]:
    """Look for the user's own architectures in this folder, not in the working folder: a worker may run elsewhere."""
    token = OWN_CODE.set(folder)
    try:
        yield
    finally:
        OWN_CODE.reset(token)


@contextmanager
def folder_searched_last(folder: str) -> Iterator[None]:
    """Find modules in the folder too, after all other places. An installed script does not look there."""
    if folder in sys.path:
        yield
        return
    sys.path.append(folder)
    try:
        yield
    finally:
        if folder in sys.path:  # the module may have changed the path
            sys.path.remove(folder)
