"""Error-minimising and error-maximising noise: unlearning from the teacher's weights only (Chundawat et al. 2023).

For a forget class f, noise is optimised until the teacher is most wrong about it; for a retain class r, until the
teacher is most certain of it:

    N_f = argmax_N  CE(T(N), f) - λ mean_n ||N_n||²         N_r = argmin_N  CE(T(N), r) + λ mean_n ||N_n||²

The impair phase trains the teacher on N_f, labelled f, together with N_r. The repair phase trains it on N_r only. So
here a forget class is a target, by design, on noise that looks nothing like the class. No other method has such a
target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.basics.out_of_memory import largest_with_copies, require_room
from synth.basics.settings import MOST_IMAGES, MOST_IN_BATCH, MOST_STEPS, ComputeSettings, setting
from synth.checkpoint.classifier import Classifier
from unlearn.methods import losses
from unlearn.methods.method import Inputs, Part
from unlearn.methods.student import copy_of


@dataclass(frozen=True, kw_only=True)
class EMMNSettings(ComputeSettings):
    """Error-minimising and -maximising noise. The defaults are those of UNSIR, its predecessor, whose authors published
    more.
    """

    noise_per_class: int = setting(256, "noise images per class", at_least=1, most=MOST_IMAGES, rare=True)
    noise_steps: int = setting(40, "Adam steps per class for its noise", at_least=1, most=MOST_STEPS)
    noise_lr: float = setting(0.1, "Adam's learning rate for the noise, in normalised pixels", above=0, rare=True)
    l2: float = setting(0.1, "weight of the noise's squared norm", at_least=0, rare=True)
    impair_steps: int = setting(20, "training steps on the noise of all classes", at_least=1, most=MOST_STEPS)
    impair_lr: float = setting(0.02, "learning rate of SGD while impairing", above=0, rare=True)
    repair_steps: int = setting(20, "training steps on the noise of the retain classes", at_least=0, most=MOST_STEPS)
    repair_lr: float = setting(0.01, "learning rate of SGD while repairing", above=0, rare=True)
    momentum: float = setting(0.0, "momentum of SGD", at_least=0, below=1, rare=True)
    batch_size: int = setting(256, "noise images per training step", at_least=2, most=MOST_IN_BATCH)


HELP = (
    "Impair and repair the teacher by noise. The noise maximises the error on the forget classes and "
    "minimises it on the others. Needs no shards."
)
SETTINGS = EMMNSettings
PRESETS: dict[str, EMMNSettings] = {}


STARTS_FROM_TEACHER = True
PIXELS_AT_ONCE, FEWEST_AT_ONCE = 2**18, 8  # 256 images of 32 x 32; of larger ones fewer go through the teacher at once
COPIES = 2  # of the noise in the processor's memory, while a checkpoint is written


def trains_on_shards(settings: EMMNSettings) -> bool:
    return False


def start(inputs: Inputs, settings: EMMNSettings) -> EMMN:
    return EMMN(inputs, settings)


class EMMN:
    """One step per class makes the class's noise. The impair steps follow, then the repair steps."""

    def __init__(self, inputs: Inputs, settings: EMMNSettings) -> None:
        self.settings, self.inputs, self.teacher = settings, inputs, inputs.teacher
        self.num_classes = inputs.card.num_classes
        self.noise_done = self.num_classes
        self.impair_done = self.noise_done + settings.impair_steps
        self.steps = self.impair_done + settings.repair_steps
        self.rng = torch.Generator().manual_seed(inputs.seed)
        self.student = copy_of(inputs.teacher, inputs).train().requires_grad_(True)
        self.optimiser = torch.optim.SGD(self.student.parameters(), lr=settings.impair_lr, momentum=settings.momentum)
        shape = (self.num_classes, settings.noise_per_class, *inputs.card.input_shape)
        refuse_large_noise(shape, inputs.device)
        self.noise = torch.zeros(shape, device=inputs.device)  # normalised pixels, (K, M, C, H, W)
        self.parts: dict[str, Part] = {
            "student": self.student,
            "optimiser": self.optimiser,
            "rng": self.rng,
            "noise": self.noise,
        }

    def step(self, number: int) -> dict[str, Tensor]:
        if number < self.noise_done:
            start_MCHW = torch.randn(self.noise.shape[1:], generator=self.rng).to(self.noise.device)
            self.noise[number] = optimised_noise(
                self.teacher, number, number in self.inputs.forget, start_MCHW, self.settings
            )
            losses_of_parts = parts_of_loss(self.teacher, self.noise[number], number, False, 0.0)
            return {"noise_loss": torch.stack(list(losses_of_parts)).sum()}
        impairing = number < self.impair_done
        rate = self.settings.impair_lr if impairing else self.settings.repair_lr
        self.optimiser.param_groups[0]["lr"] = rate
        classes = torch.arange(self.num_classes) if impairing else torch.tensor(self.inputs.retain)
        size = (self.settings.batch_size,)
        labels = classes[torch.randint(len(classes), size, generator=self.rng)].to(self.noise.device)
        rows = torch.randint(self.noise.shape[1], size, generator=self.rng).to(self.noise.device)
        loss = losses.divergence(
            losses.one_hot(labels, self.num_classes), self.student.logits(self.noise[labels, rows])
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return {"loss": loss.detach()}


def optimised_noise(
    teacher: Classifier, label: int, maximise: bool, start_MCHW: Tensor, settings: EMMNSettings
) -> Tensor:
    """The noise (M, C, H, W) after `settings.noise_steps` steps of Adam on `noise_loss`."""
    noise = start_MCHW.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([noise], lr=settings.noise_lr)
    for _ in range(settings.noise_steps):
        optimiser.zero_grad(set_to_none=True)
        for part in parts_of_loss(teacher, noise, label, maximise, settings.l2):
            part.backward()
        optimiser.step()
    return noise.detach()


def parts_of_loss(teacher: Classifier, noise_MCHW: Tensor, label: int, maximise: bool, l2: float) -> Iterator[Tensor]:
    """The terms of `noise_loss`, each from as many images as go through the teacher at once. Their sum is the loss."""
    at_once = max(FEWEST_AT_ONCE, PIXELS_AT_ONCE // noise_MCHW.shape[-2:].numel())
    for part in noise_MCHW.split(at_once):
        yield len(part) / len(noise_MCHW) * noise_loss(teacher, part, label, maximise, l2)


def refuse_large_noise(shape: tuple[int, ...], device: str) -> None:
    """Raise UserError if the memory does not hold the noise (K, M, C, H, W), also while a checkpoint is written."""
    of_one = 4 * math.prod(shape) // shape[1]
    most = int(largest_with_copies(COPIES, device) // of_one)
    cure = f"use --noise-per-class {most}" if most else "use smaller images or fewer classes"
    what = f"the noise of {shape[0]:,} classes, with {shape[1]:,} images per class and copies for a checkpoint,"
    require_room(4 * math.prod(shape), COPIES, what, cure, device)


def noise_loss(teacher: Classifier, noise_MCHW: Tensor, label: int, maximise: bool, l2: float) -> Tensor:
    """± mean_n CE(T(N_n), label) + λ mean_n Σ N_n², a scalar. The sign is minus if `maximise`, so that the error grows.

    `noise_MCHW` is in normalised pixels.
    """
    labels = torch.full((len(noise_MCHW),), label, device=noise_MCHW.device)
    error = F.cross_entropy(teacher.logits(noise_MCHW), labels)
    return (-error if maximise else error) + l2 * noise_MCHW.square().flatten(1).sum(1).mean()
