"""Adaptive DeepInversion in the loop: the student's disagreement steers what is synthesised next (Yin et al. 2020).

From the teacher alone, in rounds. Each round makes new images of the retain classes, by DeepInversion with one more term,

    min_x  R_DeepInversion(x) + α_c (1 - JS(T(x) || S(x))),     JS = ½ KL(p || m) + ½ KL(q || m),  m = ½ (p + q),

so that new images are those that teacher and student disagree on, and then trains the student on all images so far. In the
first round there is nothing to disagree with. The teacher labels what the student sees, blended and shifted as it is, with
the forget classes taken out of its distribution; its labels of the images alone are far worse (REFERENCE: 88 % to 99 %).
"""

from __future__ import annotations

import torch
from torch import Tensor

from synth.basics.errors import UserError
from synth.checkpoint.augment import shift_and_flip
from synth.checkpoint.batch_norm import batch_norm_layers
from synth.checkpoint.classifier import Classifier, to_unit
from synth.methods import deepinversion
from synth.methods.deepinversion import ExtraLoss
from synth.methods.settings import DeepInversionSettings
from unlearn.methods import losses
from unlearn.methods.method import Inputs, Part
from unlearn.methods.mixing import mixed
from unlearn.optimise import descend, one_cycle_sgd
from unlearn.samples.logits import without_forget_classes
from unlearn.settings import AdaptiveSettings

STARTS_FROM_TEACHER = False


def trains_on_shards(settings: AdaptiveSettings) -> bool:
    return False


def start(inputs: Inputs, settings: AdaptiveSettings) -> Adaptive:
    if not batch_norm_layers(inputs.teacher):
        raise UserError(
            f"{inputs.teacher.card.architecture} has no batch-norm layers, whose statistics this method's synthesis works by: use "
            "a teacher with batch norm, or 'synth generate --bn 0' and 'unlearn distill'"
        )
    return Adaptive(inputs, settings)


class Adaptive:
    """One step is one of the student's; the first of a round makes the round's images before it."""

    def __init__(self, inputs: Inputs, settings: AdaptiveSettings) -> None:
        self.settings, self.inputs, self.teacher = settings, inputs, inputs.teacher
        self.student = inputs.new_student().train()
        self.steps = settings.rounds * settings.round_steps
        self.optimiser, self.schedule = one_cycle_sgd(self.student, settings.lr, settings.weight_decay, self.steps)
        self.generator = torch.Generator().manual_seed(inputs.seed)
        self.per_round = settings.per_class * len(inputs.retain)
        size = (settings.rounds * self.per_round, *inputs.card.input_shape)
        self.images = torch.zeros(size, dtype=torch.uint8, device=inputs.device)
        self.parts: dict[str, Part] = {
            "student": self.student,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
            "generator": self.generator,
            "images": self.images,
        }

    def step(self, number: int) -> dict[str, Tensor]:
        settings = self.settings
        done, since = divmod(number, settings.round_steps)
        if since == 0:
            self.images[done * self.per_round : (done + 1) * self.per_round] = self.new_images(done)
        there = (done + 1) * self.per_round
        rows = torch.randint(there, (settings.batch_size,), generator=self.generator).to(self.images.device)
        x_unit = shift_and_flip(to_unit(self.images[rows]), settings.shift, settings.flip, self.generator)
        x_unit = mixed(x_unit, settings.mixup, self.generator)
        with torch.no_grad():
            targets = without_forget_classes(self.teacher(x_unit), self.inputs.forget, settings.temperature)
        loss = losses.divergence(targets, self.student(x_unit), settings.temperature)
        descend(loss, self.optimiser, self.schedule)
        return {"loss": loss.detach(), "images": torch.tensor(float(there))}

    def new_images(self, done: int) -> Tensor:
        """A round's images, `per_class` of each retain class, uint8 (N, C, H, W)."""
        labels = torch.tensor(self.inputs.retain).repeat(self.settings.per_class)
        extra = competition(self.student, self.settings.compete) if done and self.settings.compete else None
        self.student.eval().requires_grad_(False)
        images = deepinversion.synthesise(
            self.teacher, labels, synthesis_settings(self.settings), self.generator, extra
        )
        self.student.train().requires_grad_(True)
        return images


def competition(student: Classifier, weight: float) -> ExtraLoss:
    """α_c (1 - mean_n JS(T(x_n) || S(x_n))), JS in bits, so that both ends of the term are 0 and α_c."""
    return lambda x_norm, teacher_logits: weight * (1 - jensen_shannon(teacher_logits, student.logits(x_norm)).mean())


def jensen_shannon(logits: Tensor, other_logits: Tensor) -> Tensor:
    """JS(p || q) = ½ KL(p || m) + ½ KL(q || m) with m = ½ (p + q), in bits, (N, K) twice to (N,)."""
    log_p, log_q = logits.log_softmax(1), other_logits.log_softmax(1)
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0))
    nats = (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(1) / 2
    return nats / torch.log(torch.tensor(2.0))


def synthesis_settings(settings: AdaptiveSettings) -> DeepInversionSettings:
    return DeepInversionSettings(
        steps=settings.synthesis_steps,
        batch_size=settings.synthesis_batch,
        flip=settings.flip,
        precision=settings.precision,
        layout=settings.layout,
    )
