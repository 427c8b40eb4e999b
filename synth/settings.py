"""What a user can set, one frozen dataclass a method. No torch here: the command line reads it for its flags and help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


def setting(default: Any, help_text: str, **metadata: Any) -> Any:
    """A field with the help text that its command-line flag shows. `choices` limits its values."""
    return dataclasses.field(default=default, metadata={"help": help_text, **metadata})


def require(condition: bool, message: str) -> None:
    """Raise ValueError where a setting is out of its range."""
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """How the teacher is computed. `auto` chooses by device and teacher (`synth.compute`). Part of what determines the bytes."""

    precision: str = setting(
        "auto", "the teacher's arithmetic; images and statistics stay float32", choices=("auto", "float32", "bfloat16")
    )
    layout: str = setting("auto", "order of the teacher's maps in memory", choices=("auto", "planes", "channels-last"))

    def __post_init__(self) -> None:
        require(self.precision in ("auto", "float32", "bfloat16"), f"precision {self.precision} is unknown")
        require(self.layout in ("auto", "planes", "channels-last"), f"layout {self.layout} is unknown")


@dataclass(frozen=True, kw_only=True)
class DeepInversionSettings(ComputeSettings):
    """DeepInversion (Yin et al. 2020). The defaults are ours, chosen on training images only; the paper's are a preset.

    Four things differ from the paper by default, each of which measured better: the statistics loss is in each channel's
    own standard deviation and averaged (`bn_loss`); pixels have statistics too (`pixel`); the gradient is smoothed before
    each step, which keeps textures out that only the network sees (`smoothing`); and the steps are far fewer.
    """

    steps: int = setting(100, "Adam steps per image")
    batch_size: int = setting(500, "images optimised together; their classes are mixed, for the statistics' sake")
    lr: float = setting(0.3, "Adam's peak learning rate, in normalised pixels")
    warmup: int = setting(0, "steps of linear warm-up before the cosine decay")
    start: str = setting("dark", "first images: dark with some noise, or noise throughout", choices=("dark", "noise"))
    ce: float = setting(1.0, "weight of the teacher's cross-entropy towards the wanted class")
    bn: float = setting(80.0, "weight of the batch-norm statistics loss; 0 leaves it out")
    bn_loss: str = setting("normalised", "how statistics are compared", choices=("normalised", "published"))
    first_bn: float = setting(1.0, "factor on the first batch-norm layer's statistics")
    pixel: float = setting(20.0, "weight of the pixels' mean and variance, known from the checkpoint's normalisation")
    smoothing: int = setting(2, "times that the gradient is blurred by a 3x3 binomial filter before a step")
    tv_l1: float = setting(0.0, "weight of the total variation's absolute norm, per pixel")
    tv_l2: float = setting(0.0, "weight of the total variation's Euclidean norm, over the batch")
    tv_squared: float = setting(1.0, "weight of the total variation's squares, per pixel")
    l2: float = setting(0.0, "weight of the image's Euclidean norm")
    jitter: int = setting(0, "largest random shift in pixels, drawn anew each step")
    flip: bool = setting(False, "mirror images at random; right for natural images, wrong for digits")
    coarse_steps: int = setting(0, "of the steps, how many run first at half resolution")
    plateau: float = setting(
        0.0, "stop a batch whose loss fell by less than this share over ten steps; 0 takes every step"
    )
    warm_start: bool = setting(False, "start from the images of a generator, trained first or given by --generator")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.plateau < 1, f"plateau must be within 0 and 1, not {self.plateau}")
        require(self.steps >= 1, f"steps must be 1 or more, not {self.steps}")
        require(self.batch_size >= 2, f"batch size must be 2 or more, not {self.batch_size}")
        require(self.lr > 0, f"lr must be above 0, not {self.lr}")
        require(0 <= self.coarse_steps <= self.steps, f"coarse steps must be within 0 and steps ({self.steps})")
        require(0 <= self.jitter <= 32, f"jitter must be within 0 and 32 pixels, not {self.jitter}")
        require(0 <= self.smoothing <= 32, f"smoothing must be within 0 and 32, not {self.smoothing}")
        require(self.start in ("dark", "noise"), f"start is dark or noise, not {self.start}")
        for name in ("warmup", "ce", "bn", "first_bn", "pixel", "tv_l1", "tv_l2", "tv_squared", "l2"):
            require(getattr(self, name) >= 0, f"{name} must be 0 or more, not {getattr(self, name)}")
        require(
            self.bn_loss in ("normalised", "published"),
            f"bn_loss is normalised or published, not {self.bn_loss}",
        )


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings(ComputeSettings):
    """A class-conditional generator, trained once, then sampled. The terms are DeepInversion's, but for two.

    The defaults are ours, chosen on training images only.
    """

    train_steps: int = setting(600, "training steps of the generator, once a run")
    batch_size: int = setting(200, "images a training step")
    lr: float = setting(3e-3, "Adam's peak learning rate for the generator")
    z: int = setting(64, "length of the generator's noise")
    channels: int = setting(0, "channels of the generator; 0 sizes it to the teacher")
    ce: float = setting(1.0, "weight of the teacher's cross-entropy towards the wanted class")
    bn: float = setting(10.0, "weight of the batch-norm statistics loss; 0 leaves it out")
    pixel: float = setting(2.0, "weight of the pixels' mean and variance, known from the checkpoint's normalisation")
    tv_squared: float = setting(0.1, "weight of the total variation's squares, per pixel")
    smoothing: int = setting(0, "times that the images' gradient is blurred by a 3x3 binomial filter")
    diversity: float = setting(1.0, "weight of mode seeking: different noise is to give different images")
    activation: float = setting(0.0, "weight of strong features (DAFL), for teachers without batch norm")
    adversarial: float = setting(1.0, "weight of the disagreement with --student, where one is given")
    flip: bool = setting(False, "mirror images at random; right for natural images, wrong for digits")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.train_steps >= 1, f"train steps must be 1 or more, not {self.train_steps}")
        require(self.batch_size >= 4, f"batch size must be 4 or more, not {self.batch_size}")
        require(self.lr > 0, f"lr must be above 0, not {self.lr}")
        require(1 <= self.z <= 65536, f"z must be within 1 and 65536, not {self.z}")
        require(0 <= self.channels <= 4096, f"channels must be within 0 and 4096, not {self.channels}")
        require(0 <= self.smoothing <= 32, f"smoothing must be within 0 and 32, not {self.smoothing}")
        for name in ("ce", "bn", "pixel", "tv_squared", "diversity", "activation", "adversarial"):
            require(getattr(self, name) >= 0, f"{name} must be 0 or more, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class FastSettings(GeneratorSettings):
    """FastDFKD (Fang et al. 2022): a meta-generator, trained once, then adapted to each batch together with its noise.

    The defaults are ours. Other than the paper's, the generator is told the class, and its training ends before the first
    batch is made, so that no batch depends on the batches that a worker made before.
    """

    train_steps: int = setting(500, "training steps of the meta-generator, once a run")
    batch_size: int = setting(250, "images adapted together; their classes are mixed, for the statistics' sake")
    meta_steps: int = setting(20, "outer steps of the meta-training, each of `steps` inner ones, that follow")
    meta_lr: float = setting(0.1, "share of the way to the adapted generator that an outer step goes (Reptile)")
    steps: int = setting(5, "Adam steps on noise and generator for each batch; the paper's are 2, 5 and 10")
    z_lr: float = setting(0.02, "Adam's learning rate for the noise")
    adapt_lr: float = setting(1e-3, "Adam's learning rate for the generator while it adapts to a batch")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.meta_steps >= 0, f"meta steps must be 0 or more, not {self.meta_steps}")
        require(0 <= self.meta_lr <= 1, f"meta lr must be within 0 and 1, not {self.meta_lr}")
        require(self.steps >= 1, f"steps must be 1 or more, not {self.steps}")
        require(self.z_lr >= 0, f"z lr must be 0 or more, not {self.z_lr}")
        require(self.adapt_lr >= 0, f"adapt lr must be 0 or more, not {self.adapt_lr}")


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
    ("deepinversion", "quick"): QUICK_DEEPINVERSION,
    ("deepinversion", "warm"): WARM_DEEPINVERSION,
}
