"""How a network's raw output becomes logits, and what else it takes to build the network. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# What a network returns: logits (N, K); probabilities (N, K) of a softmax; one logit z (N, 1) of two classes, whose
# logits are (0, z); or one probability (N, 1) of a sigmoid, whose logits are (log(1 - p), log p).
OUTPUTS = ("logits", "probabilities", "one logit", "one probability")
LARGEST_CONFIG = 100_000  # characters of JSON
PARTS = ("layers", "depth", "blocks", "stages", "repeats", "heads")  # in the names of counts of parts
MOST_PARTS = 1000


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What a card states about a network that is not a plain network with K logits.

    Attributes:
        outputs: one of `OUTPUTS`.
        logits_at: the place of the logits in the tuple (a number), dict or output object (a name) that the network
            returns; None where it returns one tensor.
        config: the configuration of a `transformers:` architecture.
    """

    outputs: str = "logits"
    logits_at: int | str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.outputs not in OUTPUTS:
            raise ValueError(f"outputs {str(self.outputs)[:50]!r} is none of {', '.join(OUTPUTS)}")
        at = self.logits_at
        if isinstance(at, bool) or not (at is None or isinstance(at, (int, str))):
            raise ValueError("the place of the logits is neither a number nor a name")
        if isinstance(at, str) and not (at.isidentifier() and not at.startswith("_") and len(at) <= 100):
            raise ValueError("the name of the logits is no name")
        if len(json.dumps(self.config)) > LARGEST_CONFIG:
            raise ValueError(f"its configuration has more than {LARGEST_CONFIG:,} characters")
        check_counts(self.config)

    @property
    def one_output(self) -> bool:
        """Whether the network has one output for two classes."""
        return self.outputs.startswith("one ")

    def to_json(self) -> dict[str, Any]:
        """The values that are not the defaults."""
        plain: dict[str, Any] = {"outputs": "logits", "logits_at": None, "config": {}}
        return {name: getattr(self, name) for name, default in plain.items() if getattr(self, name) != default}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Wiring:
        """Raises KeyError, TypeError or ValueError for anything that `to_json` does not write."""
        if not isinstance(raw, Mapping):
            raise TypeError("its wiring is not one object")
        return cls(**{**raw, "config": dict(raw.get("config", {}))})


def check_counts(config: Mapping[str, Any]) -> None:
    """Raise ValueError if a configuration asks for very many parts: building them would take for ever."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            check_counts(value)
        numbers = [n for n in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(n, int)]
        if any(part in name for part in PARTS) and sum(numbers) > MOST_PARTS:
            raise ValueError(f"its configuration has {name} of {sum(numbers)}, more than {MOST_PARTS}")


def with_wiring(raw: dict[str, Any], wiring: Wiring) -> dict[str, Any]:
    """A card's JSON with the wiring in short, or without it where the network is plain, as in earlier versions."""
    rest = {name: value for name, value in raw.items() if name != "wiring"}
    return rest | ({"wiring": wiring.to_json()} if wiring.to_json() else {})
