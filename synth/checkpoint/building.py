"""A network of any architecture, built from its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from torch import nn

from synth.basics.errors import UsageError, first_line
from synth.checkpoint.architectures import ARCHITECTURES, names
from synth.checkpoint.own_code import users_own

# The models of torchvision that have further outputs in training, and the first part of the names of these outputs'
# weights.
AUXILIARY_HEADS: dict[str, tuple[str, ...]] = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
LIBRARIES = ("timm", "transformers")  # architectures `timm:NAME` and `transformers:KIND`


def names_code(architecture: str) -> bool:
    """Whether the architecture is the user's own `module:function`, which runs only if the user names it."""
    return ":" in architecture and architecture.partition(":")[0] not in LIBRARIES


def refuse_useless_code(trusted: str | None, architectures: Iterable[str], why: str) -> None:
    """Raise UsageError if --arch was given and no network is of the user's own code. `why` goes on from "no effect"."""
    if trusted and not any(map(names_code, architectures)):
        raise UsageError(f"--arch has no effect{why}: leave it out")


def build(
    architecture: str,
    in_channels: int,
    num_classes: int,
    image_size: int | tuple[int, int],
    width: float = 1.0,
    config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """An untrained network that maps (N, in_channels, H, W) to logits (N, num_classes).

    `architecture` is one of our own (`synth.checkpoint.architectures`), the name of a torchvision classification model,
    `timm:NAME`, `transformers:KIND` with its `config`, or `module:function` for a function of the user. `image_size` is
    (H, W), or the side of a square. `width` scales our own only. Auxiliary heads are left out, so that every network
    has one output in training too.

    Raises UsageError where there is no such architecture, or where it cannot take such images.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if architecture in names():
        return ARCHITECTURES.find(architecture).build(in_channels, num_classes, size[0], width)
    if width != 1.0:
        raise UsageError(f"{architecture} has one width only, unlike {', '.join(names())}: leave the width out")
    if names_code(architecture):
        return users_own(architecture, in_channels, num_classes)
    library, _, name = architecture.partition(":")
    if library == "timm":
        from synth.checkpoint.timm_models import build_timm

        return build_timm(name, in_channels, num_classes, size)
    if library == "transformers":
        from synth.checkpoint.transformers_models import build_transformers

        return build_transformers(name, num_classes, config or {})
    return build_torchvision(architecture, in_channels, num_classes, size)


def timm_name(name: str) -> list[str]:
    """`timm:NAME` if timm has a network of this name, for a user who left out `timm:`."""
    if find_spec("timm") is None:
        return []
    import timm

    return [f"timm:{name}"] if timm.is_model(name) else []


def refuse_unknown(architecture: str) -> None:
    """Raise UsageError if no library has the name. Those of the user's own code are not looked at."""
    from torchvision import models

    library, _, name = architecture.partition(":")
    if library == "timm":
        from synth.checkpoint.timm_models import check_name, timm_library

        check_name(timm_library(), name)
    if ":" in architecture or architecture in names() or architecture in models.list_models(module=models):
        return
    others = get_close_matches(architecture, [*names(), *models.list_models(module=models)], n=2)
    close = [*timm_name(architecture), *others]
    hint = f"; the nearest are {', '.join(close)}" if close else ""
    raise UsageError(
        f"unknown architecture '{architecture[:100]}': choose one of {', '.join(names())}, "
        f"a torchvision classification model (resnet18, ...), timm:NAME, or your own as module:function{hint}"
    )


def build_torchvision(name: str, in_channels: int, num_classes: int, size: tuple[int, int]) -> nn.Module:
    """A classification model of torchvision. Raises UsageError where there is none, or for other images."""
    from torchvision import models

    refuse_unknown(name)
    if in_channels != 3:
        raise UsageError(
            f"torchvision's {name} takes images with 3 channels, not {in_channels}: "
            f"choose one of {', '.join(names())}, or your own as module:function"
        )
    options: dict[str, Any] = {}
    if name in AUXILIARY_HEADS:
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": size[0]}
    elif name.startswith("maxvit"):
        options = {"input_size": size}
    try:
        return models.get_model(name, weights=None, num_classes=num_classes, **options)
    except (AssertionError, ValueError) as error:  # the size does not fit into its patches or windows
        raise UsageError(f"{name} does not accept images of {size[0]}x{size[1]} pixels: {first_line(error)}") from error
