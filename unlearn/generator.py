"""The image generator of GKT and the terms that it is trained by; both live in `synth`, whose methods train generators too."""

from synth.generator import Generator
from synth.objectives import balance_loss, disagreement, one_hot_loss

__all__ = ["Generator", "balance_loss", "disagreement", "one_hot_loss"]
