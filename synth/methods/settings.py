"""What a user can set, one frozen dataclass a method. No torch here: the command line reads it for its flags and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synth.basics.settings import ComputeSettings, require, setting


@dataclass(frozen=True, kw_only=True)
class DeepInversionSettings(ComputeSettings):
    """DeepInversion (Yin et al. 2020). The defaults are ours, chosen on training images only; the paper's are a preset.

    Four things differ from the paper by default, each of which measured better: the statistics loss is in each channel's
    own standard deviation and averaged (`bn_loss`); pixels have statistics too (`pixel`); the gradient is smoothed before
    each step, which keeps textures out that only the network sees (`smoothing`); and the steps are far fewer.
    """

    steps: int = setting(100, "Adam steps per image", at_least=1)
    batch_size: int = setting(
        500, "images optimised together; their classes are mixed, for the statistics' sake", at_least=2
    )
    lr: float = setting(0.3, "Adam's peak learning rate, in normalised pixels", above=0)
    warmup: int = setting(0, "steps of linear warm-up before the cosine decay", at_least=0)
    start: str = setting(
        "dark",
        "first images: dark with some noise, with noise as smooth as strokes, or noise throughout",
        choices=("dark", "smooth", "noise"),
    )
    ce: float = setting(1.0, "weight of the teacher's cross-entropy towards the wanted class", at_least=0)
    bn: float = setting(80.0, "weight of the batch-norm statistics loss; 0 leaves it out", at_least=0)
    bn_loss: str = setting("normalised", "how statistics are compared", choices=("normalised", "published"))
    first_bn: float = setting(1.0, "factor on the first batch-norm layer's statistics", at_least=0)
    pixel: float = setting(
        20.0, "weight of the pixels' mean and variance, known from the checkpoint's normalisation", at_least=0
    )
    smoothing: int = setting(
        2, "times that the gradient is blurred by a 3x3 binomial filter before a step", at_least=0, at_most=32
    )
    tv_l1: float = setting(0.0, "weight of the total variation's absolute norm, per pixel", at_least=0)
    tv_l2: float = setting(0.0, "weight of the total variation's Euclidean norm, over the batch", at_least=0)
    tv_squared: float = setting(1.0, "weight of the total variation's squares, per pixel", at_least=0)
    l2: float = setting(0.0, "weight of the image's Euclidean norm", at_least=0)
    jitter: int = setting(0, "largest random shift in pixels, drawn anew each step", at_least=0, at_most=32)
    flip: bool = setting(False, "mirror images at random; right for natural images, wrong for digits")
    coarse_steps: int = setting(0, "of the steps, how many run first at half resolution", at_least=0)
    plateau: float = setting(
        0.0,
        "stop a batch whose loss fell by less than this share over ten steps; 0 takes every step",
        at_least=0,
        below=1,
    )
    warm_start: bool = setting(False, "start from the images of a generator, trained first or given by --generator")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.coarse_steps <= self.steps,
            f"coarse steps must be steps ({self.steps}) or fewer, not {self.coarse_steps}",
        )


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings(ComputeSettings):
    """A class-conditional generator, trained once, then sampled. The terms are DeepInversion's, but for two.

    The defaults are ours, chosen on training images only.
    """

    train_steps: int = setting(600, "training steps of the generator, once a run", at_least=1)
    batch_size: int = setting(200, "images a training step", at_least=4)
    lr: float = setting(3e-3, "Adam's peak learning rate for the generator", above=0)
    z: int = setting(64, "length of the generator's noise", at_least=1, at_most=65536)
    channels: int = setting(0, "channels of the generator; 0 sizes it to the teacher", at_least=0, at_most=4096)
    ce: float = setting(1.0, "weight of the teacher's cross-entropy towards the wanted class", at_least=0)
    bn: float = setting(10.0, "weight of the batch-norm statistics loss; 0 leaves it out", at_least=0)
    pixel: float = setting(
        2.0, "weight of the pixels' mean and variance, known from the checkpoint's normalisation", at_least=0
    )
    tv_squared: float = setting(0.1, "weight of the total variation's squares, per pixel", at_least=0)
    smoothing: int = setting(
        0, "times that the images' gradient is blurred by a 3x3 binomial filter", at_least=0, at_most=32
    )
    diversity: float = setting(1.0, "weight of mode seeking: different noise is to give different images", at_least=0)
    activation: float = setting(0.0, "weight of strong features (DAFL), for teachers without batch norm", at_least=0)
    adversarial: float = setting(1.0, "weight of the disagreement with --student, where one is given", at_least=0)
    flip: bool = setting(False, "mirror images at random; right for natural images, wrong for digits")


@dataclass(frozen=True, kw_only=True)
class FastSettings(GeneratorSettings):
    """FastDFKD (Fang et al. 2022): a meta-generator, trained once, then adapted to each batch together with its noise.

    The defaults are ours. Other than the paper's, the generator is told the class, and its training ends before the first
    batch is made, so that no batch depends on the batches that a worker made before.
    """

    train_steps: int = setting(500, "training steps of the meta-generator, once a run", at_least=1)
    batch_size: int = setting(
        250, "images adapted together; their classes are mixed, for the statistics' sake", at_least=4
    )
    meta_steps: int = setting(
        20, "outer steps of the meta-training, each of `steps` inner ones, that follow", at_least=0
    )
    meta_lr: float = setting(
        0.1, "share of the way to the adapted generator that an outer step goes (Reptile)", at_least=0, at_most=1
    )
    steps: int = setting(5, "Adam steps on noise and generator for each batch; the paper's are 2, 5 and 10", at_least=1)
    z_lr: float = setting(0.02, "Adam's learning rate for the noise", at_least=0)
    adapt_lr: float = setting(1e-3, "Adam's learning rate for the generator while it adapts to a batch", at_least=0)


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


# The run of the report: 2,000 steps, batch 1,000, cosine with 100 steps of warm-up.
PUBLISHED_DEEPINVERSION = DeepInversionSettings(
    steps=2000,
    batch_size=1000,
    lr=0.2,
    warmup=100,
    start="noise",
    bn=0.05,
    bn_loss="published",
    first_bn=10.0,
    pixel=0.0,
    smoothing=0,
    tv_squared=0.0,
    tv_l2=1e-4,
    l2=1e-5,
    jitter=2,
    precision="float32",
    layout="planes",
)

# A tenth of the default's steps, from a start that they need not clear of single pixels' noise: on training images as good a
# student as the published 2,000 steps' (docs/results/bench-synth.md, Choosing settings).
LEAN_DEEPINVERSION = DeepInversionSettings(steps=10, lr=1.0, start="smooth")

# So few steps earn their keep by a rate five times as high: MNIST, LeNet5, 300 images a class, students of 700 steps judged on
# training images: 99.2 % retain at 5 steps and lr 1.5, 98.8 % at lr 1; 99.4 % at 10 and 0.8, 98.1 % at 0.3; 99.6 % at 100 and 0.3.
QUICK_DEEPINVERSION = DeepInversionSettings(steps=5, lr=1.5)

# A tenth of the steps, from a generator's images on.
WARM_DEEPINVERSION = DeepInversionSettings(steps=10, lr=0.2, warm_start=True)

SYNTHESIS_SETTINGS: dict[str, Any] = {
    "deepinversion": DeepInversionSettings,
    "fast": FastSettings,
    "generator": GeneratorSettings,
}
SYNTHESIS_PRESETS = {
    ("deepinversion", "published"): PUBLISHED_DEEPINVERSION,
    ("deepinversion", "lean"): LEAN_DEEPINVERSION,
    ("deepinversion", "quick"): QUICK_DEEPINVERSION,
    ("deepinversion", "warm"): WARM_DEEPINVERSION,
}
