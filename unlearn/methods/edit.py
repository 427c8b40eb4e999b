"""Editing in place: the baselines that a method has to beat. The teacher's weights, which hold the forget classes, are
changed.

masked-logit     the last layer gives the forget classes' logits a large negative constant. Nothing is forgotten.
last-layer       only the last layer is trained again, from random weights, on synthetic retain data. The features stay.
finetune         the whole teacher is trained further on synthetic retain data.
random-relabel   like finetune, but also on synthetic forget data with random retain labels (Graves et al. 2021).
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
from unlearn.methods import losses
from unlearn.methods.masking import mask_logits, refuse_unmaskable
from unlearn.methods.method import Inputs, Part
from unlearn.methods.student import copy_of
from unlearn.samples.batch import Batch
from unlearn.samples.filters import Filter, NoForgetLabel
from unlearn.settings import Idle

BASELINES = ("masked-logit", "last-layer", "finetune", "random-relabel")


@dataclass(frozen=True, kw_only=True)
class BaselineSettings(ComputeSettings):
    """Baselines that start from the teacher's weights. The defaults are our own."""

    kind: str = setting("finetune", "which baseline", choices=BASELINES)
    steps: int = setting(500, "training steps; masking the logit takes none", at_least=1, most=MOST_STEPS)
    batch_size: int = setting(128, "images per step", at_least=2, most=MOST_IN_BATCH)
    lr: float = setting(0.01, "learning rate of SGD with momentum 0.9", above=0)
    shift: int = setting(2, "largest random shift in pixels", at_least=0, at_most=64)


HELP = (
    "Edit the teacher in place, as a baseline. Masks the logit, retrains the last layer, fine-tunes, or "
    "relabels at random. All kinds but masked-logit need --shards."
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
    return {} if settings.kind == "random-relabel" else {"forget label": NoForgetLabel(forget)}


def start(inputs: Inputs, settings: BaselineSettings) -> MaskedLogit | Finetuning:
    return MaskedLogit(inputs) if settings.kind == "masked-logit" else Finetuning(inputs, settings)


class MaskedLogit:
    """b_f := -10⁴ and w_f := 0 for every forget class f. The mask is in the weights, so whoever loads them gets it."""

    steps = 1

    def __init__(self, inputs: Inputs) -> None:
        self.student = copy_of(inputs.teacher, inputs)
        self.forget = list(inputs.forget)
        refuse_unmaskable(inputs)
        self.parts: dict[str, Part] = {"student": self.student}

    def step(self, number: int) -> dict[str, Tensor]:
        mask_logits(self.student, self.forget)
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
            self.student.requires_grad_(False)
            layer.requires_grad_(True)
        else:
            self.student.train().requires_grad_(True)
        self.optimiser = torch.optim.SGD(
            [p for p in self.student.parameters() if p.requires_grad], lr=settings.lr, momentum=0.9
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
