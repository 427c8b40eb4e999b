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
class DeepInversionSettings:
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

    def __post_init__(self) -> None:
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
)

SYNTHESIS_SETTINGS = {"deepinversion": DeepInversionSettings}
SYNTHESIS_PRESETS = {("deepinversion", "published"): PUBLISHED_DEEPINVERSION}
