"""What a user can set, one frozen dataclass a task. No torch here: the command line reads it for its flags and help."""

from __future__ import annotations

from dataclasses import dataclass

from synth.settings import require, setting


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Supervised training of a teacher or a retrained reference: SGD with momentum and a one-cycle learning rate."""

    epochs: int = setting(10, "passes over the training images")
    batch_size: int = setting(128, "images a step")
    lr: float = setting(0.1, "peak learning rate")
    weight_decay: float = setting(5e-4, "L2 penalty on the weights")
    shift: int | None = setting(None, "largest random shift in pixels; by default 4 on natural images, else 0")
    flip: bool | None = setting(None, "mirror images at random; by default on natural images only")

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"epochs must be 1 or more, not {self.epochs}")
        require(self.batch_size >= 2, f"batch size must be 2 or more, not {self.batch_size}")
        require(self.lr > 0, f"lr must be above 0, not {self.lr}")
        require(self.weight_decay >= 0, f"weight decay must be 0 or more, not {self.weight_decay}")
        require(self.shift is None or 0 <= self.shift <= 64, f"shift must be within 0 and 64 pixels, not {self.shift}")


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """Filtered distillation: a student from scratch on the shards' images and the teacher's stored logits.

    Temperature, shift and steps were chosen on training images of MNIST, never on test images.
    """

    gate: float = setting(0.01, "drop samples whose forget-class probability is this or more (ε of GKT)")
    entropy: float | None = setting(None, "drop samples whose entropy in nats is this or more")
    steps: int = setting(4000, "training steps")
    batch_size: int = setting(128, "images a step")
    lr: float = setting(0.1, "peak learning rate of SGD with momentum")
    weight_decay: float = setting(5e-4, "L2 penalty on the weights")
    temperature: float = setting(4.0, "softens the teacher's and the student's probabilities")
    mixup: float = setting(0.0, "blend pairs of images and of their targets by Beta(m, m); 0 is off")
    shift: int | None = setting(
        None,
        "largest random shift in pixels; by default 0 where the shards hold blends, which are shifted already, else 2",
    )
    flip: bool = setting(False, "mirror images at random; right for natural images, wrong for digits")

    def __post_init__(self) -> None:
        require(0 < self.gate <= 1, f"gate must be within 0 and 1, not {self.gate}")
        require(self.entropy is None or self.entropy > 0, f"entropy must be above 0, not {self.entropy}")
        require(self.steps >= 1, f"steps must be 1 or more, not {self.steps}")
        require(self.batch_size >= 2, f"batch size must be 2 or more, not {self.batch_size}")
        require(self.lr > 0, f"lr must be above 0, not {self.lr}")
        require(self.weight_decay >= 0, f"weight decay must be 0 or more, not {self.weight_decay}")
        require(self.temperature > 0, f"temperature must be above 0, not {self.temperature}")
        require(self.mixup >= 0, f"mixup must be 0 or more, not {self.mixup}")
        require(self.shift is None or 0 <= self.shift <= 64, f"shift must be within 0 and 64 pixels, not {self.shift}")
