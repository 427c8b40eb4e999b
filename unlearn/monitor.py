"""Stopping without data: the student's answers on synthetic hold-outs that no student is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from synth.errors import UserError
from synth.teacher import Classifier, predict
from unlearn.settings import LoopSettings
from unlearn.stream import Batch


class Monitor:
    """Follows the forget class on its substitutes, and keeps the best student from before it comes back.

    Both values are per cent. `holdout_forget` is how many substitutes of the forget classes the student calls by a
    forget class; `holdout_retain` is on how many substitutes of the retain classes it agrees with the teacher. The best
    student is the one with the highest retain value while the forget value is within the bound. A student that starts
    from the teacher, or from chance, may begin above the bound: that is no return.
    """

    def __init__(self, samples: Batch, forget: tuple[int, ...], settings: LoopSettings) -> None:
        self.settings = settings
        certain = (
            samples.logits.argmax(1) == samples.labels
        )  # substitutes that the teacher itself takes for their class
        forgotten = torch.isin(samples.labels, torch.tensor(forget))
        self.forget = torch.tensor(forget)
        self.forget_images = samples.images[certain & forgotten]
        self.retain_images = samples.images[certain & ~forgotten]
        self.retain_labels = samples.labels[certain & ~forgotten]
        if not len(self.forget_images) or not len(self.retain_images):
            raise UserError(
                f"the hold-out has {len(self.forget_images)} images of the forget classes and {len(self.retain_images)} of "
                "the others: make shards of all classes, hold out a larger share with --holdout, or use --no-monitor"
            )
        self.best: dict[str, Tensor] | None = None
        self.best_retain = self.best_step = -1.0
        self.above = 0  # evaluations in a row with the forget class above the bound, after it had been within

    def judge(self, step: int, student: Classifier) -> dict[str, float]:
        """Evaluate the student, and keep a copy of it where it is the best so far."""
        training = student.training
        student.eval()
        forget_called = predict(student, self.forget_images).argmax(1)
        retain_called = predict(student, self.retain_images).argmax(1)
        student.train(training)
        forget = 100 * torch.isin(forget_called, self.forget).double().mean().item()
        retain = 100 * (retain_called == self.retain_labels).double().mean().item()
        if forget <= self.settings.forget_bound:
            self.above = 0
            if retain >= self.best_retain:
                self.best, self.best_retain, self.best_step = weights_of(student), retain, float(step)
        elif self.best is not None:
            self.above += 1
        return {"holdout_retain": retain, "holdout_forget": forget}

    @property
    def forget_class_is_back(self) -> bool:
        return self.above >= self.settings.patience

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_retain": self.best_retain,
            "best_step": self.best_step,
            "above": self.above,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.above = state["best"], state["above"]
        self.best_retain, self.best_step = state["best_retain"], state["best_step"]


def weights_of(student: Classifier) -> dict[str, Tensor]:
    """A copy of the student's weights and statistics, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in student.state_dict().items()}
