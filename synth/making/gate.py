"""The quality gate: bounds that an image must meet, or it is generated again. No torch here: the command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synth.basics.settings import require


@dataclass(frozen=True, kw_only=True)
class QualityGate:
    """Bounds that an image must meet, on the pixels that are written, or it is made again.

    Written `confidence=0.9,entropy=0.5,agreement=0.8,tries=3`, in any order; what is left out is not asked for.
    """

    confidence: float | None = None  # the teacher's probability of the wanted class is this or more
    entropy: float | None = None  # the teacher's entropy in nats is this or less
    agreement: float | None = None  # of the image shifted eight ways, the share that the teacher calls the wanted class
    tries: int = 3  # times that an image is made, at most; the best of them is kept where none meets the bounds

    def __post_init__(self) -> None:
        bounds = (self.confidence, self.entropy, self.agreement)
        require(any(b is not None for b in bounds), "a quality gate needs a bound: confidence, entropy or agreement")
        for name in ("confidence", "agreement"):
            value = getattr(self, name)
            require(value is None or 0 < value <= 1, f"{name} of the quality gate must be within 0 and 1, not {value}")
        require(
            self.entropy is None or self.entropy > 0, f"entropy of the quality gate must be above 0, not {self.entropy}"
        )
        require(1 <= self.tries <= 100, f"tries of the quality gate must be within 1 and 100, not {self.tries}")

    @classmethod
    def parse(cls, text: str) -> QualityGate:
        """Raises ValueError where the text is no gate."""
        given: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            require(
                bool(equals) and name in ("confidence", "entropy", "agreement", "tries") and name not in given,
                f"'{text}' is no quality gate: write it like confidence=0.9,entropy=0.5,agreement=0.8,tries=3",
            )
            try:
                given[name] = int(value) if name == "tries" else float(value)
            except ValueError:
                raise ValueError(f"{name} of the quality gate is no number: '{value}'") from None
        return cls(**given)
