"""What a user can set of an audit. It imports no torch, because the command line reads it for its flags and help."""

from __future__ import annotations

from dataclasses import dataclass

from synth.basics.settings import MOST_IMAGES, MOST_IN_BATCH, Settings, require, setting, shortened

MOST_CURVES = 20  # relearning curves, or probes


@dataclass(frozen=True, kw_only=True)
class AuditSettings(Settings):
    """Which experiments an audit runs, their sizes and lengths. With the defaults an audit of a LeNet5 takes minutes on
    two cores.
    """

    measures: str = setting(
        "",
        "run only these, such as accuracy,probe,transplant: a quick look that can show what is left of the class, and "
        "never that nothing is  [default: all]",
    )
    repeats: int = setting(
        3,
        "repeats of the slow measures: relearning (without real data, as many as the verdict needs) and resurrection",
        at_least=2,
        most=1000,
    )
    draws: int = setting(
        10, "repeats of the quick measures: the linear probe and membership inference", at_least=2, most=1000
    )
    pool: int = setting(
        500,
        "real training images per class that relearning, probe and membership inference may use",
        at_least=1,
        most=MOST_IMAGES,
        rare=True,
    )
    judge_images: int = setting(
        300, "images per class that relearning and the probe are judged on", at_least=1, most=MOST_IMAGES, rare=True
    )
    relearn_labels: str = setting("5,20,100", "images per class to relearn from, one curve for each number", rare=True)
    relearn_steps: int = setting(
        64,
        "steps of a relearning curve; a curve that ends below its target is marked as censored",
        at_least=1,
        most=100_000,
        rare=True,
    )
    relearn_batch: int = setting(50, "images per relearning step", at_least=2, most=MOST_IN_BATCH, rare=True)
    relearn_lr: float = setting(1e-3, "Adam's learning rate while relearning", above=0, rare=True)
    relearn_share: float = setting(
        0.95,
        "share of the original's forget accuracy that counts as relearned",
        above=0,
        at_most=1,
        rare=True,
    )
    probe_labels: str = setting(
        "1,5", "labels per class that the linear probe learns from, one probe for each number", rare=True
    )
    inversion_steps: int = setting(60, "DeepInversion steps for the resurrection", at_least=1, most=100_000, rare=True)
    inversion_images: int = setting(
        20,
        "images of each forget class in a resurrection; half as many of each other class, at most 200 together",
        at_least=1,
        most=10_000,
        rare=True,
    )
    random_models: int = setting(
        2, "randomly initialised models of this model's shape, for comparison", at_least=1, most=100
    )
    confidence: float = setting(0.95, "coverage of every interval", at_least=0.5, below=1)

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names in `measures`; empty for all."""
        return tuple(name.strip() for name in self.measures.split(",") if name.strip())

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.chosen) or not self.measures, f"'{self.measures}' names no measure: write accuracy,probe")
        counts(self.relearn_labels)
        counts(self.probe_labels)


def counts(text: str) -> tuple[int, ...]:
    """`5,20,100` as ascending numbers. Raises ValueError if it is not a list of positive counts, at most
    `MOST_CURVES` of at most `MOST_IMAGES`.
    """
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        found = (0,)
    require(found[0] >= 1, f"'{shortened(text)}' is not a list of label counts: write it like 5,20,100")
    require(len(found) <= MOST_CURVES, f"'{shortened(text)}' has {len(found)} label counts: give at most {MOST_CURVES}")
    require(
        found[-1] <= MOST_IMAGES, f"'{shortened(text)}' has a label count above {MOST_IMAGES:,}: give a smaller one"
    )
    return found
