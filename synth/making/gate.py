"""The quality gate: bounds that an image must meet, or it is generated again. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synth.basics.settings import require

BOUNDS = ("confidence", "entropy", "agreement", "copies")


@dataclass(frozen=True, kw_only=True)
class QualityGate:
    """Bounds that the written pixels of an image must meet; otherwise the image is generated again.

    As text: `copies=0.8,confidence=0.9,entropy=0.5,tries=3`, in any order. A bound that is left out is not checked.
    """

    confidence: float | None = None  # least probability that the teacher gives the wanted class
    entropy: float | None = None  # largest entropy of the teacher's answer, in nats
    agreement: float | None = None  # least share of the image's eight shifts that get the wanted class
    copies: float | None = None  # least share of the image's changed copies (copies.py) that get the wanted class
    tries: int = 3  # most times that an image is generated; if none meets the bounds, the best is kept

    def __post_init__(self) -> None:
        bounds = [getattr(self, name) for name in BOUNDS]
        require(any(b is not None for b in bounds), f"a quality gate needs a bound: one of {', '.join(BOUNDS)}")
        for name in ("confidence", "agreement", "copies"):
            value = getattr(self, name)
            require(value is None or 0 < value <= 1, f"{name} of the quality gate must be within 0 and 1, not {value}")
        require(
            self.entropy is None or 0 < self.entropy < float("inf"),
            f"entropy of the quality gate must be above 0 and finite, not {self.entropy}",
        )
        require(1 <= self.tries <= 100, f"tries of the quality gate must be within 1 and 100, not {self.tries}")

    @classmethod
    def parse(cls, text: str) -> QualityGate:
        """The gate in the text. Raises ValueError if there is none."""
        given: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            require(
                bool(equals) and name in (*BOUNDS, "tries") and name not in given,
                f"'{text}' is not a quality gate: write it like copies=0.8,confidence=0.9,entropy=0.5,tries=3",
            )
            try:
                given[name] = int(value) if name == "tries" else float(value)
            except ValueError:
                raise ValueError(f"{name} of the quality gate is not a number: '{value}'") from None
        return cls(**given)
