"""A network of any architecture, built from its name."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn

from synth.basics.errors import UsageError
from synth.checkpoint.architectures import ARCHITECTURES, names

# The models of torchvision that have further outputs in training, and the first part of the names of these outputs'
# weights.
AUXILIARY_HEADS: dict[str, tuple[str, ...]] = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
OWN_CODE: ContextVar[str | None] = ContextVar("OWN_CODE", default=None)  # the folder of the user's own code


def build(architecture: str, in_channels: int, num_classes: int, image_size: int, width: float = 1.0) -> nn.Module:
    """An untrained network that maps (N, in_channels, image_size, image_size) to logits (N, num_classes).

    `architecture` is one of our own (`synth.checkpoint.architectures`), the name of a torchvision classification model,
    or `module:function` for a function of the user that takes (in_channels, num_classes). `width` scales our own only.
    Auxiliary heads are left out, so that every network has one output in training too.

    Raises UsageError where there is no such architecture, or where it cannot take such images.
    """
    if architecture in names():
        return ARCHITECTURES.find(architecture).build(in_channels, num_classes, image_size, width)
    if width != 1.0:
        raise UsageError(f"--width scales {', '.join(names())} only, not {architecture}")
    if ":" in architecture:
        return users_own(architecture, in_channels, num_classes)
    from torchvision import models

    if architecture not in models.list_models(module=models):
        raise UsageError(
            f"unknown architecture '{architecture}': choose one of {', '.join(names())}, "
            "a torchvision classification model (resnet18, ...), or your own as module:function"
        )
    if in_channels != 3:
        raise UsageError(
            f"torchvision's {architecture} takes images with 3 channels, not {in_channels}: "
            f"choose one of {', '.join(names())}, or your own as module:function"
        )
    plain = {"aux_logits": False, "init_weights": True} if architecture in AUXILIARY_HEADS else {}
    return models.get_model(architecture, weights=None, num_classes=num_classes, **plain)


def users_own(architecture: str, in_channels: int, num_classes: int) -> nn.Module:
    """The network that the function named `module:function` builds. Only the user may name it, never a file."""
    module_name, _, function_name = architecture.partition(":")
    with folder_searched_last(OWN_CODE.get() or os.getcwd()):
        try:
            function = getattr(importlib.import_module(module_name), function_name)
        except Exception as error:  # the user's module may raise anything
            raise UsageError(
                f"cannot find the architecture '{architecture}' ({type(error).__name__}: {error}): correct the module, "
                "put its folder on PYTHONPATH, or name another"
            ) from error
        try:
            net = function(in_channels, num_classes)
        except Exception as error:
            raise UsageError(
                f"the architecture '{architecture}', called with ({in_channels}, {num_classes}) for channels and "
                f"classes, failed: {error}"
            ) from error
    if not isinstance(net, nn.Module):
        raise UsageError(f"the architecture '{architecture}' made a {type(net).__name__}, not a torch.nn.Module")
    return net


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
