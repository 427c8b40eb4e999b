"""Presets: the settings that a run starts from. Each has a form for small images, and may have two for photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

TUNED = "tuned"  # the preset of each method's defaults
# Pixels of the shorter side. CIFAR and its kind are between the two, and everything that is cropped from photographs
# is above.
THUMBNAIL_SIDE, PHOTO_SIDE = 32, 64
BESIDE = ("quality_gate", "student_sha256")  # what an index records among a run's settings that is none of its method


class Form(Enum):
    """What a teacher's images are taken for. The value is what a person reads."""

    SMALL = "small images"
    THUMBNAIL = "small photographs"
    PHOTO = "photographs"


# The name in a method's file of the presets of each form beside the first.
DECLARED_AS = {Form.THUMBNAIL: "THUMBNAIL_PRESETS", Form.PHOTO: "PHOTO_PRESETS"}
SIDES = {Form.THUMBNAIL: f"in colour, {THUMBNAIL_SIDE} px or more", Form.PHOTO: f"{PHOTO_SIDE} px or more"}


def form_of(image_shape: Sequence[int]) -> Form:
    """What images (C, H, W) are taken for.

    Strokes of a few pixels have one scale, and settings of their own fit them. Objects in photographs come in many
    sizes, and details of single pixels are seen only by the network that they were optimised for.
    """
    side = min(image_shape[1:])
    if side >= PHOTO_SIDE:
        return Form.PHOTO
    return Form.THUMBNAIL if image_shape[0] == 3 and side >= THUMBNAIL_SIDE else Form.SMALL


def methods_own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the method, of those that a run's index records."""
    return {name: value for name, value in settings.items() if name not in BESIDE}


def presets_in(method: Any, form: Form) -> Mapping[str, Any]:
    """The presets of a method's file in one form, by name; those for small images if the file declares no other."""
    if has_form(method, form):
        presets: Mapping[str, Any] = getattr(method, DECLARED_AS[form])
        return presets
    return {TUNED: method.SETTINGS(), **method.PRESETS}


def has_form(method: Any, form: Form) -> bool:
    return form in DECLARED_AS and hasattr(method, DECLARED_AS[form])


def presets_for(method: Any, image_shape: Sequence[int]) -> Mapping[str, Any]:
    """The presets of a method's file for a teacher that takes images (C, H, W)."""
    return presets_in(method, form_of(image_shape))


def preset_line(name: str, method: Any, preset: str, image_shape: Sequence[int]) -> str:
    """Which form of a preset a run starts from, and why, for a person. `name` is the method's."""
    because = f"the teacher takes images of {'x'.join(map(str, image_shape))}"
    form = form_of(image_shape)
    if has_form(method, form):
        return f"preset {preset} for {form.value}, because {because} ({SIDES[form]})"
    if form is Form.PHOTO:
        return f"warning: {because}, but --method {name} has no preset for photographs: look at the images first"
    return f"preset {preset} for {Form.SMALL.value}, because {because}"
