"""What the audited student may claim, given the weights that its training began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synth.basics.settings import shortened


def layers(kept: str) -> str:
    return f"first layers, {kept} of them" if kept.endswith("%") else f"layers up to '{kept}'"


def claim(record: Mapping[str, Any]) -> str:
    """One or two sentences on the student's start, from its own card; empty if its weights were random at first."""
    training = record["models"]["student"]["training"]
    settings, start = training.get("settings"), training.get("start_from")
    kept = settings.get("keep_layers") if isinstance(settings, Mapping) else None
    found = []
    if training.get("from_teacher") is True:
        found.append(
            "The student's weights are the original's, which saw the class, and were changed. It cannot claim that it "
            "never saw the class."
        )
    if kept:
        found.append(
            f"The student holds the original's {layers(shortened(kept))}, which saw the class, and did not "
            "change them. It claims only that the later layers never learnt from the class."
        )
    weights = isinstance(start, Mapping) and f"{shortened(start.get('file'))}, sha256 {str(start.get('sha256'))[:12]}"
    if weights and kept:
        found.append(f"The later layers started from public weights ({weights}).")
    elif weights:
        found.append(
            f"The student started from public weights ({weights}). It claims that it holds no more of the "
            "images to forget than these weights, which never saw them. What the weights know of such images in "
            "general is left in it"
            + (": the column 'public' shows how much." if record["models"].get("public") else ".")
        )
    return " ".join(found)
