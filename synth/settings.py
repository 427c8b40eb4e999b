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
    """DeepInversion (Yin et al. 2020). The defaults are ours, chosen on training images only; `PUBLISHED` is the report's.

    Two things differ from the paper by default: the statistics loss is measured in each channel's own standard deviation
    and averaged (`bn_loss`), and the steps are far fewer.
    """

    steps: int = setting(200, "Adam steps per image")
    batch_size: int = setting(500, "images optimised together; their classes are mixed, for the statistics' sake")
    lr: float = setting(0.1, "Adam's peak learning rate, in normalised pixels")
    warmup: int = setting(0, "steps of linear warm-up before the cosine decay")
    ce: float = setting(1.0, "weight of the teacher's cross-entropy towards the wanted class")
    bn: float = setting(10.0, "weight of the batch-norm statistics loss; 0 leaves it out")
    bn_loss: str = setting("normalised", "how statistics are compared", choices=("normalised", "published"))
    first_bn: float = setting(1.0, "factor on the first batch-norm layer's statistics")
    tv_l1: float = setting(0.0, "weight of the total variation's absolute norm")
    tv_l2: float = setting(0.0, "weight of the total variation's Euclidean norm")
    l2: float = setting(0.0, "weight of the image's Euclidean norm")
    jitter: int = setting(2, "largest random shift in pixels, drawn anew each step")
    flip: bool = setting(False, "mirror images at random; right for natural images, wrong for digits")
    coarse_steps: int = setting(0, "of the steps, how many run first at half resolution")

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps must be 1 or more, not {self.steps}")
        require(self.batch_size >= 2, f"batch size must be 2 or more, not {self.batch_size}")
        require(self.lr > 0, f"lr must be above 0, not {self.lr}")
        require(0 <= self.coarse_steps <= self.steps, f"coarse steps must be within 0 and steps ({self.steps})")
        require(0 <= self.jitter <= 32, f"jitter must be within 0 and 32 pixels, not {self.jitter}")
        for name in ("warmup", "ce", "bn", "first_bn", "tv_l1", "tv_l2", "l2"):
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
    bn=0.05,
    bn_loss="published",
    first_bn=10.0,
    tv_l2=1e-4,
    l2=1e-5,
)

SYNTHESIS_SETTINGS = {"deepinversion": DeepInversionSettings}
SYNTHESIS_PRESETS = {("deepinversion", "published"): PUBLISHED_DEEPINVERSION}
