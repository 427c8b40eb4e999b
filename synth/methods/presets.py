"""Presets: the settings that a run starts from. Each has a form for small images, and may have one for photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TUNED = "tuned"  # the preset of each method's defaults
# Pixels. MNIST, CIFAR and their kind are below it, and everything that is cropped from photographs above.
PHOTO_SIDE = 64
BESIDE = ("quality_gate", "student_sha256")  # what an index records among a run's settings that is none of its method


def takes_photographs(image_shape: Sequence[int]) -> bool:
    """Whether images (C, H, W) are treated as photographs: both sides have 64 pixels or more.

    Below this size an image has one scale, and settings for strokes of a few pixels fit. Above it, objects come in many
    sizes, and details of single pixels are seen only by the network that they were optimised for.
    """
    return min(image_shape[1:]) >= PHOTO_SIDE


def methods_own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the method, of those that a run's index records."""
    return {name: value for name, value in settings.items() if name not in BESIDE}


def small_presets(method: Any) -> Mapping[str, Any]:
    """The presets of a method's file for small images, by name."""
    return {TUNED: method.SETTINGS(), **method.PRESETS}


def photo_presets(method: Any) -> Mapping[str, Any]:
    """The presets of a method's file for photographs, by name. A method that declares none has one form of each."""
    return method.PHOTO_PRESETS if has_photo_form(method) else small_presets(method)


def has_photo_form(method: Any) -> bool:
    return hasattr(method, "PHOTO_PRESETS")


def presets_for(method: Any, image_shape: Sequence[int]) -> Mapping[str, Any]:
    """The presets of a method's file for a teacher that takes images (C, H, W)."""
    return photo_presets(method) if takes_photographs(image_shape) else small_presets(method)


def preset_line(name: str, method: Any, preset: str, image_shape: Sequence[int]) -> str:
    """Which form of a preset a run starts from, and why, for a person. `name` is the method's."""
    because = f"the teacher takes images of {'x'.join(map(str, image_shape))}"
    if not takes_photographs(image_shape):
        return f"preset {preset} for small images, because {because}"
    if has_photo_form(method):
        return f"preset {preset} for photographs, because {because} ({PHOTO_SIDE} px or more)"
    return f"warning: {because}, but --method {name} has no preset for photographs: look at the images first"
