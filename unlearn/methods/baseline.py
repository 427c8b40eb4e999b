"""Baselines: what a method has to beat. Each starts from the teacher, whose weights hold the forget classes.

masked-logit     the last layer gives the forget classes' logits a large negative constant. Nothing is forgotten.
last-layer       the last layer alone is trained anew on synthetic retain data; the features stay the teacher's.
finetune         the whole teacher is trained on with synthetic retain data.
random-relabel   as finetune, together with synthetic forget data under random retain labels (Graves et al. 2021).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from synth.augment import shift_and_flip
from synth.errors import UserError
from synth.teacher import Classifier, to_unit
from unlearn import losses
from unlearn.filters import Filter, retain_label
from unlearn.loop import Inputs, Part
from unlearn.settings import BaselineSettings

STARTS_FROM_TEACHER = True
MASKED = -1e4  # a logit whose softmax is 0 in floating point


def trains_on_shards(settings: BaselineSettings) -> bool:
    return settings.kind != "masked-logit"


def training_filters(forget: tuple[int, ...], settings: BaselineSettings) -> dict[str, Filter]:
    return {} if settings.kind == "random-relabel" else {"forget label": retain_label(forget)}


def start(inputs: Inputs, settings: BaselineSettings) -> MaskedLogit | Finetuning:
    return MaskedLogit(inputs) if settings.kind == "masked-logit" else Finetuning(inputs, settings)


class MaskedLogit:
    """b_f := -10⁴ and w_f := 0 for every forget class f, in the weights, so that any reader gets the masked model."""

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
    """Cross-entropy on the shards' classes, by SGD, on the whole network or on its last layer alone."""

    def __init__(self, inputs: Inputs, settings: BaselineSettings) -> None:
        assert inputs.samples is not None
        self.settings, self.samples, self.steps = settings, inputs.samples, settings.steps
        self.generator = torch.Generator().manual_seed(inputs.seed)
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
        self.targets = losses.one_hot(self.relabelled(inputs), inputs.card.num_classes)
        self.parts: dict[str, Part] = {
            "student": self.student,
            "optimiser": self.optimiser,
            "generator": self.generator,
        }

    def relabelled(self, inputs: Inputs) -> Tensor:
        """The samples' classes, where a forget class is replaced by a retain class, drawn once for each sample."""
        labels = self.samples.labels
        draw = torch.randint(len(inputs.retain), labels.shape, generator=self.generator)
        random_retain = torch.tensor(inputs.retain)[draw].to(labels.device)
        return torch.where(torch.isin(labels, torch.tensor(inputs.forget, device=labels.device)), random_retain, labels)

    def step(self, number: int) -> dict[str, Tensor]:
        rows = torch.randint(len(self.samples), (self.settings.batch_size,), generator=self.generator)
        rows = rows.to(self.targets.device)
        x_unit = shift_and_flip(to_unit(self.samples.images[rows]), self.settings.shift, False, self.generator)
        loss = losses.divergence(self.targets[rows], self.student(x_unit))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return {"loss": loss.detach()}


@torch.no_grad()
def mask_logits(model: Classifier, forget: Sequence[int]) -> None:
    """Mask the forget classes in the model's own last layer."""
    layer = last_layer(model)
    if layer.bias is None:
        raise UserError("the teacher's last layer has no bias to mask the forget classes with: use another baseline")
    layer.weight[list(forget)] = 0.0
    layer.bias[list(forget)] = MASKED


def refuse_unmaskable(inputs: Inputs) -> None:
    """Raise UserError where the teacher can't be masked in its last layer."""
    masked = copy_of(inputs.teacher, inputs)
    mask_logits(masked, inputs.forget)
    check_masked(masked, inputs.forget)


@torch.no_grad()
def check_masked(masked: Classifier, forget: tuple[int, ...]) -> None:
    """Raise UserError where what `mask_logits` wrote isn't what the model answers, as where a ReLU follows the last layer."""
    gray = torch.full((1, *masked.card.input_shape), 0.5, device=masked.mean.device)
    logits = masked(gray)[0]
    retain = [c for c in range(masked.card.num_classes) if c not in forget]
    if not logits[list(forget)].max() < logits[retain].min():
        raise UserError(
            f"{masked.card.architecture} can't be masked in its last layer, whose outputs are not its logits: use another baseline"
        )


def copy_of(teacher: Classifier, inputs: Inputs) -> Classifier:
    """A network of the student's card with the teacher's weights."""
    return Classifier(copy.deepcopy(teacher.net), inputs.card).to(inputs.device).eval()


def last_layer(model: Classifier) -> nn.Linear | nn.Conv2d:
    """The layer that makes the logits: the last linear or 1x1 convolution layer with one output a class."""
    layers = [
        m
        for m in model.modules()
        if (isinstance(m, nn.Linear) and m.out_features == model.card.num_classes)
        or (isinstance(m, nn.Conv2d) and m.out_channels == model.card.num_classes)
    ]
    if not layers:
        raise UserError(f"{model.card.architecture} has no linear layer with one output a class: use another baseline")
    return layers[-1]
