"""Adaptive DeepInversion in the loop: the student's disagreement steers what is synthesised next (Yin et al. 2020).

It needs the teacher only and works in rounds. Each round makes new images of the retain classes, by DeepInversion with
one more term,

    min_x  R_DeepInversion(x) + α_c (1 - JS(T(x) || S(x))),     JS = ½ KL(p || m) + ½ KL(q || m),  m = ½ (p + q),

so that teacher and student disagree on the new images. Then it trains the student on all images so far. The first round
has no such term, because the student is untrained. The teacher labels exactly what the student sees, blended and
shifted, and the forget classes are removed from its distribution. Labels of the unblended images are far worse: 88 %
against 99 %.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synth.basics.errors import UserError
from synth.basics.out_of_memory import require_room
from synth.basics.settings import MOST_IMAGES, MOST_IN_BATCH, MOST_STEPS, ComputeSettings, setting
from synth.checkpoint.augment import shift_and_flip
from synth.checkpoint.batch_norm import batch_norm_layers
from synth.checkpoint.classifier import Classifier, to_unit
from synth.checkpoint.fitting import fitting
from synth.methods import deepinversion
from synth.methods.deepinversion_settings import DeepInversionSettings
from synth.methods.presets import TUNED, Form, form_of, presets_in
from unlearn.methods import losses
from unlearn.methods.method import Inputs, Part, StuckError, is_finite
from unlearn.methods.mixing import mixed
from unlearn.optimise import descend, one_cycle_sgd
from unlearn.samples.logits import without_forget_classes


@dataclass(frozen=True, kw_only=True)
class AdaptiveSettings(ComputeSettings):
    """Adaptive DeepInversion in the loop. `compete` has the paper's default; the other defaults are our own."""

    rounds: int = setting(5, "rounds of synthesis and distillation", at_least=1, most=MOST_STEPS)
    per_class: int = setting(20, "images per retain class that a round adds", at_least=1, most=MOST_IMAGES)
    compete: float = setting(
        10.0,
        "weight of the student's disagreement in the synthesis (the paper's alpha_c); 0 leaves it out",
        at_least=0,
        rare=True,
    )
    synthesis_steps: int = setting(100, "Adam steps for a round's images", at_least=1, most=MOST_STEPS)
    synthesis_batch: int = setting(500, "images optimised together", at_least=2, most=MOST_IN_BATCH, rare=True)
    round_steps: int = setting(400, "the student's training steps per round", at_least=1, most=MOST_STEPS)
    batch_size: int = setting(128, "images per step", at_least=2, most=MOST_IN_BATCH)
    lr: float = setting(0.1, "peak learning rate of SGD with momentum, one cycle over all rounds", above=0, rare=True)
    weight_decay: float = setting(5e-4, "L2 penalty on the weights", at_least=0, rare=True)
    temperature: float = setting(
        1.0,
        "softens the teacher's and the student's probabilities; above 1 they show more of the forget class",
        above=0,
    )
    mixup: float = setting(
        1.0,
        "blend pairs of images by Beta(m, m) before the teacher labels them; 0 is off",
        at_least=0,
        rare=True,
    )
    shift: int = setting(2, "largest random shift in pixels", at_least=0, at_most=64)
    flip: bool = setting(False, "mirror images at random; right for natural images, wrong for digits")


HELP = (
    "Alternate synthesis and distillation. The student's disagreement with the teacher steers the images. "
    "Needs no shards."
)
SETTINGS = AdaptiveSettings
PRESETS: dict[str, AdaptiveSettings] = {
    "photographs": AdaptiveSettings(
        rounds=10, per_class=50, synthesis_steps=200, synthesis_batch=250, round_steps=1000, shift=4, flip=True
    )
}


FORGETS_POINTS = True
STARTS_FROM_TEACHER = False
BATCHES = 100  # in a row that may hold fewer than two images far from the points to forget
COPIES = 3  # of the images in the processor's memory, while a checkpoint is written


def trains_on_shards(settings: AdaptiveSettings) -> bool:
    return False


def start(inputs: Inputs, settings: AdaptiveSettings) -> Adaptive:
    if not batch_norm_layers(inputs.teacher):
        raise UserError(
            f"{inputs.teacher.card.architecture} has no batch-norm layers, and this method's synthesis needs their "
            "statistics: use a teacher with batch norm, or 'synth generate' and 'unlearn distill'"
        )
    if inputs.card.input_shape[0] == 3 and settings == AdaptiveSettings():
        inputs.say("these settings are for digits, and the teacher takes colour images: consider --preset photographs")
    return Adaptive(inputs, settings)


class MadeImages:
    """The images of all rounds, uint8 (N, C, H, W), on the device. A checkpoint holds those that are made."""

    def __init__(self, size: Sequence[int], device: str) -> None:
        self.all, self.count = torch.zeros(tuple(size), dtype=torch.uint8, device=device), 0

    def add(self, images: Tensor) -> None:
        self.all[self.count : self.count + len(images)] = images.to(self.all.device)
        self.count += len(images)

    def state_dict(self) -> dict[str, Tensor]:
        return {"images": self.all[: self.count].cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.count = 0
        self.add(state["images"])


class Adaptive:
    """A step is one training step of the student. The first step of a round makes the round's images first."""

    def __init__(self, inputs: Inputs, settings: AdaptiveSettings) -> None:
        self.settings, self.inputs, self.teacher = settings, inputs, inputs.teacher
        self.student = inputs.new_student().train()
        self.steps = settings.rounds * settings.round_steps
        self.optimiser, self.schedule = one_cycle_sgd(self.student, settings.lr, settings.weight_decay, self.steps)
        self.rng = torch.Generator().manual_seed(inputs.seed)
        self.per_round = settings.per_class * len(inputs.retain)
        size = (settings.rounds * self.per_round, *inputs.card.input_shape)
        what = f"{size[0]:,} images of {settings.rounds} rounds, with copies for a checkpoint,"
        require_room(math.prod(size), COPIES, what, "lower --per-class or --rounds", inputs.device)
        self.made = MadeImages(size, inputs.device)
        self.batch = torch.zeros((), dtype=torch.long)  # images optimised together; 0 before the first round
        self.parts: dict[str, Part] = {
            "student": self.student,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
            "rng": self.rng,
            "made images": self.made,
            "batch": self.batch,
        }
        if inputs.points:
            self.parts["points"] = inputs.points

    def step(self, number: int) -> dict[str, Tensor]:
        settings = self.settings
        done, since = divmod(number, settings.round_steps)
        if since == 0:
            self.made.add(self.new_images(done))
        there = (done + 1) * self.per_round
        x_unit = self.images_to_learn(there)
        with torch.no_grad():
            targets = without_forget_classes(self.teacher(x_unit), self.inputs.forget, settings.temperature)
        loss = losses.divergence(targets, self.student(x_unit), settings.temperature)
        descend(loss, self.optimiser, self.schedule)
        return {"loss": loss.detach(), "images": torch.tensor(float(there))}

    def images_to_learn(self, there: int) -> Tensor:
        """A batch in [0, 1] of the first `there` images, shifted and blended, without those near points to forget."""
        settings = self.settings
        for _ in range(BATCHES):
            rows = torch.randint(there, (settings.batch_size,), generator=self.rng).to(self.made.all.device)
            x_unit = shift_and_flip(to_unit(self.made.all[rows]), settings.shift, settings.flip, self.rng)
            x_unit = mixed(x_unit, settings.mixup, self.rng)
            if self.inputs.points is None:
                return x_unit
            x_unit = x_unit[~self.inputs.points.near_in_batch(x_unit, count=True).to(x_unit.device)]
            if len(x_unit) > 1:  # batch norm needs two
                return x_unit
        raise StuckError(
            f"{BATCHES} batches held fewer than two images far from the points: lower --points-share or the ε that you "
            "gave"
        )

    def new_images(self, done: int) -> Tensor:
        """The images of a round, `per_class` per retain class, uint8 (N, C, H, W)."""
        labels = torch.tensor(self.inputs.retain).repeat(self.settings.per_class)
        against = self.student if done and self.settings.compete else None
        if against and not is_finite(against):
            raise StuckError("the student diverged (its weights are not finite): lower --lr")
        self.student.eval().requires_grad_(False)
        images = deepinversion.synthesise(
            self.teacher, labels, self.synthesis(labels, against), self.rng, student=against
        )
        self.student.train().requires_grad_(True)
        return images

    def synthesis(self, labels: Tensor, against: Classifier | None) -> DeepInversionSettings:
        """The settings of the synthesis. The run's first round chooses the batch: where the memory does not hold it, it
        is halved, which is said. A resumed run keeps it.
        """
        asked = synthesis_settings(self.settings, self.inputs.card.input_shape)
        if not self.batch:

            def step(settings: DeepInversionSettings, images: int) -> None:
                few, rng = labels.repeat(images)[:images], torch.Generator().manual_seed(0)
                deepinversion.synthesise(self.teacher, few, settings, rng, student=against)

            fits = fitting(self.teacher, asked, deepinversion.brief, step, most=len(labels))
            self.batch.fill_(fits.batch_size)
            if fits != asked:
                self.inputs.say(f"images are optimised {fits.batch_size} at a time: the memory holds no more")
        return dataclasses.replace(asked, batch_size=int(self.batch))


def synthesis_settings(settings: AdaptiveSettings, image_shape: Sequence[int]) -> DeepInversionSettings:
    """DeepInversion's own, in its form for small images or for photographs, with what this method's settings name.

    The form for small photographs is not used: its learning rate suits 30 steps, and this method takes more.
    """
    photographs = form_of(image_shape) is Form.PHOTO
    own = presets_in(deepinversion, Form.PHOTO if photographs else Form.SMALL)[TUNED]
    assert isinstance(own, DeepInversionSettings)
    return dataclasses.replace(
        own,
        steps=settings.synthesis_steps,
        batch_size=settings.synthesis_batch,
        compete=settings.compete,
        flip=settings.flip,
        precision=settings.precision,
        layout=settings.layout,
    )
