"""The settings and presets of every method, loaded for real."""

from typing import Any

from synth.basics.plugins import Plugins
from synth.methods import METHODS as SYNTHESIS
from unlearn.methods import METHODS as UNLEARNING


def settings_of(methods: Plugins) -> dict[str, Any]:
    return {name: methods.find(name).SETTINGS for name in methods.names()}


def presets_of(methods: Plugins) -> dict[tuple[str, str], Any]:
    return {(name, preset): found for name in methods.names() for preset, found in methods.find(name).PRESETS.items()}


SYNTHESIS_SETTINGS, SYNTHESIS_PRESETS = settings_of(SYNTHESIS), presets_of(SYNTHESIS)
METHOD_SETTINGS, METHOD_PRESETS = settings_of(UNLEARNING), presets_of(UNLEARNING)
