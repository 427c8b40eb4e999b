"""Fine-tuning: what a training that starts from trained weights does otherwise than one from random weights."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from synth.checkpoint.batch_norm import batch_norm_layers


def one_cycle_adamw(model: nn.Module, lr: float, weight_decay: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    """AdamW (Loshchilov & Hutter 2019) with one cycle of the learning rate.

    The learning rate rises for the first tenth of the steps, then falls to 0. Biases and the factors of norms do not
    decay. Weights that need no gradient are left out.
    """
    trained = [value for value in model.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in trained if value.dim() > 1], "weight_decay": weight_decay},
        {"params": [value for value in trained if value.dim() <= 1], "weight_decay": 0.0},
    ]
    optimiser = AdamW(groups, lr=lr)
    rise = max(1, steps // 10)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        return max(0.0, (steps - step) / max(1, steps - rise))

    return optimiser, LambdaLR(optimiser, factor)


def train_mode(model: nn.Module, freeze_batch_norm: bool) -> None:
    """Set train mode. Frozen batch norm normalises by its running statistics and does not change them.

    The statistics of public weights come from millions of images. A small batch's own are noisy, and those of synthetic
    images are not those of photographs. The layers' factors and offsets are trained all the same.
    """
    model.train()
    if freeze_batch_norm:
        for layer in batch_norm_layers(model):
            layer.eval()
