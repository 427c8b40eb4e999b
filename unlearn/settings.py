"""What a user can set, one frozen dataclass a task. No torch here: the command line reads it for its flags and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synth.settings import require, setting


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Supervised training of a teacher or a retrained reference: SGD with momentum and a one-cycle learning rate."""

    epochs: int = setting(10, "passes over the training images")
    batch_size: int = setting(128, "images a step")
    lr: float = setting(0.1, "peak learning rate")
    weight_decay: float = setting(5e-4, "L2 penalty on the weights")
    shift: int = setting(2, "largest random shift in pixels")
    flip: bool | None = setting(None, "mirror images at random; by default on natural images only")

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"epochs must be 1 or more, not {self.epochs}")
        require(self.batch_size >= 2, f"batch size must be 2 or more, not {self.batch_size}")
        require(self.lr > 0, f"lr must be above 0, not {self.lr}")
        require(self.weight_decay >= 0, f"weight decay must be 0 or more, not {self.weight_decay}")
        require(0 <= self.shift <= 64, f"shift must be within 0 and 64 pixels, not {self.shift}")


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """Filtered distillation: a student from scratch on the shards' images and the teacher's stored logits."""

    gate: float = setting(0.01, "drop samples whose forget-class probability is this or more (ε of GKT)")
    entropy: float | None = setting(None, "drop samples whose entropy in nats is this or more")
    steps: int = setting(4000, "training steps")
    batch_size: int = setting(128, "images a step")
    lr: float = setting(0.1, "peak learning rate of SGD with momentum")
    weight_decay: float = setting(5e-4, "L2 penalty on the weights")
    temperature: float = setting(1.0, "softens the teacher's and the student's probabilities")
    mixup: float = setting(1.0, "blend pairs of images by Beta(m, m); 0 is off")
    shift: int = setting(2, "largest random shift in pixels")
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
        require(0 <= self.shift <= 64, f"shift must be within 0 and 64 pixels, not {self.shift}")


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """What every method's loop shares: how often it looks up from its work, and the monitor that stops it."""

    every: int = setting(50, "steps between two checks: a line of metrics, a checkpoint, a look by the monitor")
    monitor: bool = setting(True, "stop before the forget class comes back, by synthetic hold-outs from --shards")
    holdout: float = setting(0.1, "share of the shards that is never trained on, for the monitor")
    forget_bound: float = setting(1.0, "the forget class is back where more than this % of its hold-outs are called it")
    patience: int = setting(2, "checks in a row above the bound before the run stops")

    def __post_init__(self) -> None:
        require(self.every >= 1, f"every must be 1 or more, not {self.every}")
        require(0 < self.holdout < 1, f"holdout must be within 0 and 1, not {self.holdout}")
        require(0 <= self.forget_bound < 100, f"forget bound must be within 0 and 100 %, not {self.forget_bound}")
        require(self.patience >= 1, f"patience must be 1 or more, not {self.patience}")


BASELINES = ("masked-logit", "last-layer", "finetune", "random-relabel")


@dataclass(frozen=True, kw_only=True)
class BaselineSettings:
    """What every comparison needs. All start from the teacher's weights; the defaults are ours."""

    kind: str = setting("finetune", "which baseline", choices=BASELINES)
    steps: int = setting(500, "training steps; masking the logit takes none")
    batch_size: int = setting(128, "images a step")
    lr: float = setting(0.01, "learning rate of SGD with momentum 0.9")
    shift: int = setting(2, "largest random shift in pixels")

    def __post_init__(self) -> None:
        require(self.kind in BASELINES, f"kind is one of {', '.join(BASELINES)}, not {self.kind}")
        require(self.steps >= 1, f"steps must be 1 or more, not {self.steps}")
        require(self.batch_size >= 2, f"batch size must be 2 or more, not {self.batch_size}")
        require(self.lr > 0, f"lr must be above 0, not {self.lr}")
        require(0 <= self.shift <= 64, f"shift must be within 0 and 64 pixels, not {self.shift}")


@dataclass(frozen=True, kw_only=True)
class EMMNSettings:
    """Error-minimising and -maximising noise. The defaults are those of UNSIR, its predecessor, which publishes more."""

    noise_per_class: int = setting(256, "noise images optimised for each class")
    noise_steps: int = setting(40, "Adam steps for a class's noise")
    noise_lr: float = setting(0.1, "Adam's learning rate for the noise, in normalised pixels")
    l2: float = setting(0.1, "weight of the noise's squared norm")
    impair_steps: int = setting(20, "training steps on the noise of all classes")
    impair_lr: float = setting(0.02, "learning rate of SGD while impairing")
    repair_steps: int = setting(20, "training steps on the noise of the retain classes")
    repair_lr: float = setting(0.01, "learning rate of SGD while repairing")
    momentum: float = setting(0.0, "momentum of SGD")
    batch_size: int = setting(256, "noise images a training step")

    def __post_init__(self) -> None:
        for name in ("noise_per_class", "noise_steps", "impair_steps"):
            require(getattr(self, name) >= 1, f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("noise_lr", "impair_lr", "repair_lr"):
            require(getattr(self, name) > 0, f"{name} must be above 0, not {getattr(self, name)}")
        require(self.l2 >= 0, f"l2 must be 0 or more, not {self.l2}")
        require(self.repair_steps >= 0, f"repair steps must be 0 or more, not {self.repair_steps}")
        require(0 <= self.momentum < 1, f"momentum must be within 0 and 1, not {self.momentum}")
        require(self.batch_size >= 2, f"batch size must be 2 or more, not {self.batch_size}")


METHOD_SETTINGS = {"baseline": BaselineSettings, "emmn": EMMNSettings}
METHOD_PRESETS: dict[tuple[str, str], Any] = {}
