"""Networks of the timm library: `timm:NAME`. timm is an optional dependency."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from torch import nn

from synth.basics.errors import UsageError, first_line


def timm_library() -> ModuleType:
    """The library. Raises UsageError where it is not installed."""
    try:
        import timm
    except ImportError:
        raise UsageError(
            "timm:NAME needs the timm library, which is not installed: pip install timm, or '.[hub]' in a clone"
        ) from None
    return timm


def build_timm(name: str, in_channels: int, num_classes: int, size: tuple[int, int]) -> nn.Module:
    """The untrained network. Raises UsageError where timm has no such network, or for other images."""
    timm = timm_library()
    check_name(timm, name)
    # A plain name only: timm would download what a name such as hf-hub:ORGANISATION/NAME refers to.
    options = size_options(timm, name, size)
    try:
        return timm.create_model(name, pretrained=False, in_chans=in_channels, num_classes=num_classes, **options)
    except (AssertionError, ValueError, TypeError, RuntimeError) as error:
        raise UsageError(
            f"timm:{name} does not accept images [{in_channels}, {size[0]}, {size[1]}]: {first_line(error)}"
        ) from error


def size_options(timm: ModuleType, name: str, size: tuple[int, int]) -> dict[str, Any]:
    """What timm needs to build the network for images of another size (height, width) than its usual one."""
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size and tuple(config.input_size[1:]) != size:
        return {"img_size": size}
    return {}


def check_name(timm: ModuleType, name: str) -> None:
    """Raise UsageError, with the names that come close, if timm has no such network."""
    if name.replace("_", "").replace(".", "").isalnum() and timm.is_model(name):
        return
    from difflib import get_close_matches

    close = get_close_matches(name, timm.list_models(), n=3)
    hint = f" (it has {', '.join(close)})" if close else ""
    raise UsageError(f"timm has no network '{name[:100]}'{hint}: see timm.list_models()")
