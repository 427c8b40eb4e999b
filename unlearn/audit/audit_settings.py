"""What a user can set of an audit. No torch here: the command line reads it for its flags and help."""

from __future__ import annotations

from dataclasses import dataclass

from synth.basics.settings import Settings, require, setting


@dataclass(frozen=True, kw_only=True)
class AuditSettings(Settings):
    """Sizes and lengths of the audit's experiments. The defaults keep an audit of a LeNet5 within minutes on two cores."""

    repeats: int = setting(
        3,
        "repeats of what is slow: relearning (without real data, as many as the verdict needs) and resurrection",
        at_least=2,
    )
    draws: int = setting(10, "draws of what is quick: the probe's labels, the membership attack's sets", at_least=2)
    pool: int = setting(
        500,
        "real training images a class that relearning, probe and membership inference may draw from",
        at_least=1,
        rare=True,
    )
    judge_images: int = setting(
        300, "images a class that relearning and the probe are judged on", at_least=1, rare=True
    )
    relearn_labels: str = setting("5,20,100", "images a class to relearn from, one curve each", rare=True)
    relearn_steps: int = setting(
        64,
        "steps after which relearning is given up; a curve cut there is marked as censored",
        at_least=1,
        rare=True,
    )
    relearn_batch: int = setting(50, "images a relearning step", at_least=2, rare=True)
    relearn_lr: float = setting(1e-3, "Adam's learning rate while relearning", above=0, rare=True)
    relearn_share: float = setting(
        0.95,
        "share of the original's forget accuracy that counts as relearned",
        above=0,
        at_most=1,
        rare=True,
    )
    probe_labels: str = setting("1,5", "labels a class that the linear probe learns from, one probe each", rare=True)
    inversion_steps: int = setting(60, "DeepInversion steps for the resurrection", at_least=1, rare=True)
    inversion_images: int = setting(
        20,
        "images of each forget class in a resurrection; half as many of the others",
        at_least=1,
        rare=True,
    )
    random_models: int = setting(2, "randomly initialised models of this model's shape, for comparison", at_least=1)
    confidence: float = setting(0.95, "coverage of every interval", at_least=0.5, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
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
