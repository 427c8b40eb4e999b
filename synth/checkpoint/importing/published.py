"""Published weights, and what their makers state about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from synth.checkpoint.importing.card_options import Facts
from synth.checkpoint.wiring import Wiring


@dataclass(frozen=True, kw_only=True)
class Source:
    """Published weights: the architecture, what their makers state about it, and the file.

    `net` is the network with its weights where only its own library can read the file.
    """

    name: str
    architecture: str
    facts: Facts
    file: Path
    wiring: Wiring = field(default_factory=Wiring)
    net: nn.Module | None = None
