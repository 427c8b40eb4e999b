"""What a user can set of an audit. No torch here: the command line reads it for its flags and help."""

from __future__ import annotations

from dataclasses import dataclass

from synth.settings import require, setting


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """Sizes and lengths of the audit's experiments. The defaults keep an audit of a LeNet5 within minutes on two cores."""

    repeats: int = setting(
        3, "repeats of what is slow: relearning and resurrection, each with its own samples and seed"
    )
    draws: int = setting(10, "draws of what is quick: the probe's labels, the membership attack's sets")
    pool: int = setting(
        500, "real training images a class that relearning, probe and membership inference may draw from"
    )
    judge_images: int = setting(300, "images a class that relearning and the probe are judged on")
    relearn_labels: str = setting("5,20,100", "images a class to relearn from, one curve each")
    relearn_steps: int = setting(
        64, "steps after which relearning is given up; a curve cut there is marked as censored"
    )
    relearn_batch: int = setting(50, "images a relearning step")
    relearn_lr: float = setting(1e-3, "Adam's learning rate while relearning")
    relearn_share: float = setting(0.95, "share of the original's forget accuracy that counts as relearned")
    probe_labels: str = setting("1,5", "labels a class that the linear probe learns from, one probe each")
    inversion_steps: int = setting(60, "DeepInversion steps for the resurrection")
    inversion_images: int = setting(20, "images of each forget class in a resurrection; half as many of the others")
    random_models: int = setting(2, "randomly initialised models of this model's shape, for comparison")
    confidence: float = setting(0.95, "coverage of every interval")

    def __post_init__(self) -> None:
        for name in ("repeats", "draws"):
            require(
                getattr(self, name) >= 2, f"{name} must be 2 or more, not {getattr(self, name)}: one has no interval"
            )
        for name in ("pool", "judge_images", "relearn_steps", "random_models", "inversion_steps", "inversion_images"):
            require(getattr(self, name) >= 1, f"{name} must be 1 or more, not {getattr(self, name)}")
        require(self.relearn_batch >= 2, f"relearn batch must be 2 or more, not {self.relearn_batch}")
        require(self.relearn_lr > 0, f"relearn lr must be above 0, not {self.relearn_lr}")
        require(0 < self.relearn_share <= 1, f"relearn share must be within 0 and 1, not {self.relearn_share}")
        require(0.5 <= self.confidence < 1, f"confidence must be within 0.5 and 1, not {self.confidence}")
        counts(self.relearn_labels)
        counts(self.probe_labels)


def counts(text: str) -> tuple[int, ...]:
    """`5,20,100` as numbers. Raises ValueError where it is no list of counts."""
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        found = (0,)
    require(found[0] >= 1, f"'{text}' is no list of label counts: write it like 5,20,100")
    return found
