"""What trainings on real and on synthetic images share: optimisers with one cycle of the learning rate, and a log."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

Log = Callable[[int, dict[str, float]], None]
"""Takes the number of a step or epoch, and values by name."""


def one_cycle_sgd(model: nn.Module, lr: float, weight_decay: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    """SGD with Nesterov momentum 0.9 and one cycle of the learning rate (Smith 2018).

    The learning rate rises for the first fifth of the steps, then falls to 0.
    """
    optimiser = SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    return optimiser, one_cycle(optimiser, steps, rise=max(1, steps // 5))


def one_cycle_adamw(model: nn.Module, lr: float, weight_decay: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    """AdamW (Loshchilov & Hutter 2019) with one cycle of the learning rate, for weights that are trained already.

    The learning rate rises for the first tenth of the steps, then falls to 0. Biases and the factors of norms do not
    decay. Weights that need no gradient are left out.
    """
    trained = [value for value in model.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in trained if value.dim() > 1], "weight_decay": weight_decay},
        {"params": [value for value in trained if value.dim() <= 1], "weight_decay": 0.0},
    ]
    optimiser = AdamW(groups, lr=lr)
    return optimiser, one_cycle(optimiser, steps, rise=max(1, steps // 10))


ONE_CYCLE = {"sgd": one_cycle_sgd, "adamw": one_cycle_adamw}


def one_cycle(optimiser: Optimizer, steps: int, rise: int) -> LRScheduler:
    """The learning rate rises for `rise` steps, then falls to 0."""

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return max(0.0, (steps - step) / max(1, steps - rise))

    return LambdaLR(optimiser, factor)


def descend(loss: Tensor, optimiser: Optimizer, schedule: LRScheduler) -> None:
    """One step of the optimiser and of the learning rate's schedule."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    schedule.step()
