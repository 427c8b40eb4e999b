"""Editing in place: the baselines that a method has to beat. The teacher's weights, which hold the forget classes, are
changed.

masked-logit     the last layer gives the forget classes' logits a large negative constant. Nothing is forgotten.
last-layer       only the last layer is trained again, from random weights, on synthetic retain data. The features stay.
finetune         the whole teacher is trained further on synthetic retain data.
random-relabel   like finetune, but also on synthetic forget data with random retain labels (Graves et al. 2021).
soft-finetune    the whole teacher is trained further towards its own answers without the forget classes, on retain and
                 forget images both, with batch norm frozen. It is what a fine-tuned or a large network allows beside
                 keeping its early layers: hard labels and batch norm in train mode destroy such a network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synth.basics.settings import MOST_IN_BATCH, MOST_STEPS, ComputeSettings, setting
from synth.checkpoint.augment import shift_and_flip
from synth.checkpoint.classifier import to_unit
from synth.checkpoint.layers import last_layer
from unlearn.fine_tuning import train_mode
from unlearn.methods import losses
from unlearn.methods.masking import mask_logits, refuse_unmaskable
from unlearn.methods.method import Inputs, Part
from unlearn.methods.student import copy_of, fresh_card
from unlearn.optimise import descend, one_cycle_adamw
from unlearn.samples.batch import Batch
from unlearn.samples.filters import Filter, NoForgetLabel
from unlearn.samples.logits import without_forget_classes
from unlearn.settings import Idle

BASELINES = ("masked-logit", "last-layer", "finetune", "random-relabel", "soft-finetune")
LR, SOFT_LR = 0.01, 1e-4


@dataclass(frozen=True, kw_only=True)
class BaselineSettings(ComputeSettings):
    """Baselines that start from the teacher's weights. The defaults are our own."""

    kind: str = setting("finetune", "which baseline", choices=BASELINES)
    steps: int = setting(500, "training steps; masking the logit takes none", at_least=1, most=MOST_STEPS)
    batch_size: int = setting(128, "images per step", at_least=2, most=MOST_IN_BATCH)
    lr: float | None = setting(
        None,
        f"learning rate; by default {LR} of SGD with momentum 0.9, with --kind soft-finetune {SOFT_LR} of AdamW",
        above=0,
    )
    shift: int = setting(2, "largest random shift in pixels", at_least=0, at_most=64)


HELP = (
    "Edit the teacher in place, as a baseline. Masks the logit, retrains the last layer, fine-tunes, relabels at "
    "random, or fine-tunes towards the teacher's own answers without the class. All kinds but masked-logit need "
    "--shards."
)
SETTINGS = BaselineSettings
PRESETS: dict[str, BaselineSettings] = {}
IDLE: Idle = (
    (
        ("steps", "batch_size", "lr", "shift"),
        lambda s: s.kind == "masked-logit",
        "with --kind masked-logit, which is not trained: leave it out",
    ),
)


STARTS_FROM_TEACHER = True


def trains_on_shards(settings: BaselineSettings) -> bool:
    return settings.kind != "masked-logit"


def training_filters(forget: tuple[int, ...], settings: BaselineSettings) -> dict[str, Filter]:
    both = settings.kind in ("random-relabel", "soft-finetune")
    return {} if both else {"forget label": NoForgetLabel(forget)}


def start(inputs: Inputs, settings: BaselineSettings) -> MaskedLogit | Finetuning | SoftFinetuning:
    if settings.kind == "masked-logit":
        return MaskedLogit(inputs)
    return SoftFinetuning(inputs, settings) if settings.kind == "soft-finetune" else Finetuning(inputs, settings)


class MaskedLogit:
    """b_f := -10⁴ and w_f := 0 for every forget class f. The mask is in the weights, so whoever loads them gets it."""

    steps = 1

    def __init__(self, inputs: Inputs) -> None:
        self.student = copy_of(inputs.teacher, inputs)
        self.forget = list(inputs.forget)
        refuse_unmaskable(inputs)
        mask_logits(self.student, self.forget)  # here, because a resumed run may have no step left
        self.parts: dict[str, Part] = {"student": self.student}

    def step(self, number: int) -> dict[str, Tensor]:
        return {}


class Finetuning:
    """SGD on the cross-entropy with the samples' classes. It trains the whole network, or only its last layer."""

    def __init__(self, inputs: Inputs, settings: BaselineSettings) -> None:
        assert inputs.samples is not None
        self.settings, self.samples, self.steps = settings, inputs.samples, settings.steps
        self.inputs = inputs
        self.rng = torch.Generator().manual_seed(inputs.seed)
        self.student = copy_of(inputs.teacher, inputs)
        if settings.kind == "last-layer":
            layer = last_layer(self.student)
            layer.load_state_dict(last_layer(inputs.new_student()).state_dict())
            self.student.card = fresh_card(self.student.card)
            self.student.requires_grad_(False)
            layer.requires_grad_(True)
        else:
            self.student.train().requires_grad_(True)
        self.optimiser = torch.optim.SGD(
            [p for p in self.student.parameters() if p.requires_grad], lr=settings.lr or LR, momentum=0.9
        )
        self.parts: dict[str, Part] = {
            "student": self.student,
            "optimiser": self.optimiser,
            "rng": self.rng,
            "samples": self.samples,
        }

    def relabelled(self, batch: Batch) -> Tensor:
        """The classes (B,) of the samples. A retain class, drawn once per image, replaces each forget class."""
        labels, retain = batch.labels.tolist(), self.inputs.retain
        for row, image in enumerate(batch.ids.tolist()):
            if labels[row] in self.inputs.forget:
                labels[row] = retain[np.random.default_rng((self.inputs.seed, image)).integers(len(retain))]
        return torch.tensor(labels, device=batch.labels.device)

    def step(self, number: int) -> dict[str, Tensor]:
        batch = self.samples.next(self.settings.batch_size).to(self.inputs.device)
        targets = losses.one_hot(self.relabelled(batch), self.inputs.card.num_classes)
        x_unit = shift_and_flip(to_unit(batch.views), self.settings.shift, False, self.rng)
        loss = losses.divergence(targets, self.student(x_unit))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return {"loss": loss.detach()}


class SoftFinetuning:
    """AdamW on KL(q || S(x)); q is the teacher's own distribution without the forget classes, for every image.

    An image of a forget class keeps what the teacher says about it otherwise, as in DELETE (CVPR 2025). The
    monitor chooses the student, so the steps are a maximum.
    """

    def __init__(self, inputs: Inputs, settings: BaselineSettings) -> None:
        assert inputs.samples is not None
        self.settings, self.inputs, self.samples, self.steps = settings, inputs, inputs.samples, settings.steps
        self.rng = torch.Generator().manual_seed(inputs.seed)
        self.student = copy_of(inputs.teacher, inputs).requires_grad_(True)
        self.optimiser, self.schedule = one_cycle_adamw(self.student, settings.lr or SOFT_LR, 0.0, settings.steps)
        self.parts: dict[str, Part] = {
            "student": self.student,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
            "rng": self.rng,
            "samples": self.samples,
        }

    def step(self, number: int) -> dict[str, Tensor]:
        train_mode(self.student, freeze_batch_norm=True)  # the monitor sets the mode of all layers
        batch = self.samples.next(self.settings.batch_size).to(self.inputs.device)
        targets = without_forget_classes(batch.logits, self.inputs.forget)
        x_unit = shift_and_flip(to_unit(batch.views), self.settings.shift, False, self.rng)
        loss = losses.divergence(targets, self.student(x_unit))
        descend(loss, self.optimiser, self.schedule)
        return {"loss": loss.detach()}
