"""Batch-norm statistics of a frozen network as a loss.

A layer and its statistics are one node of the graph (`FusedBatchNorm`). The statistics then cost two reductions forward
and one pass backward; with hooks beside the layer they would cost four and three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synth.checkpoint.replaced import replaced

ROWS = 14  # of a map are enough for its statistics

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


def batch_norm_layers(model: nn.Module) -> list[BatchNorm]:
    """Every layer with running statistics (BatchNorm1d to 3d, SyncBatchNorm, subclasses) in order of registration."""
    return [m for m in model.modules() if isinstance(m, BatchNorm) and m.running_mean is not None]


@contextmanager
def estimating_anew(model: nn.Module) -> Iterator[None]:
    """Forward passes in the `with` block estimate the running statistics anew, as a plain average over the batches.

    Layers that are not in training mode keep theirs.
    """
    layers = [layer for layer in batch_norm_layers(model) if layer.training]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average
    try:
        yield
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum


@contextmanager
def by_batch_statistics(model: nn.Module) -> Iterator[None]:
    """Batch-norm layers normalise by the statistics of the batch in the `with` block. Running statistics stay."""
    layers = [layer for layer in batch_norm_layers(model) if not layer.training]
    before = [layer.track_running_stats for layer in layers]
    for layer in layers:
        layer.training, layer.track_running_stats = True, False  # so that no buffer changes, not even the count
    try:
        yield
    finally:
        for layer, tracks in zip(layers, before, strict=True):
            layer.training, layer.track_running_stats = False, tracks


class BatchStatistics:
    """The mean and variance per channel of a batch at each layer, filled by one forward pass.

    Args:
        sampled: read every n-th row of large maps only, at least `ROWS` of them. It is for images that are shifted at
            random in each step, so that each of their rows is read in some steps.
    """

    def __init__(self, sampled: bool = False) -> None:
        self.moments: dict[BatchNorm, tuple[Tensor, Tensor]] = {}  # in the order of the forward pass
        self.sampled = sampled

    def record(self, layer: BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        self.moments[layer] = channel_moments(every_nth_row(inputs[0], self.stride(inputs[0])))

    def stride(self, x: Tensor) -> int:
        """The distance of the rows of a map that are read: 1 for all."""
        return max(1, x.shape[2] // ROWS) if self.sampled and x.dim() == 4 else 1

    def normalised_loss(self, first_layer_weight: float = 1.0) -> Tensor:
        """(1 / Σ w_l) Σ_l w_l · mean_c [ (μ_lc(x) - μ_lc)² / σ²_lc + (σ²_lc(x) / σ²_lc - 1)² ], a scalar.

        The paper's distance, measured in each channel's own standard deviation and averaged, so that one weight fits
        every architecture and width.
        """
        terms = []
        for layer, (mean, variance) in self.moments.items():
            running_mean, running_variance = running_statistics(layer)
            terms.append(normalised_distance(mean, variance + layer.eps, running_mean, running_variance))
        weights = [first_layer_weight, *[1.0] * (len(terms) - 1)]
        return torch.stack([w * t for w, t in zip(weights, terms, strict=True)]).sum() / (sum(weights) or 1.0)

    def published_loss(self, first_layer_weight: float = 1.0) -> Tensor:
        """Σ_l w_l ( ||μ_l(x) - μ_l||₂ + ||σ²_l(x) - σ²_l||₂ ), a scalar (Yin et al. 2020, equation 4)."""
        terms = []
        for layer, (mean, variance) in self.moments.items():
            running_mean, running_variance = running_statistics(layer)
            terms.append((mean - running_mean).norm() + (variance - running_variance + layer.eps).norm())
        return torch.stack([first_layer_weight * terms[0], *terms[1:]]).sum()


def running_statistics(layer: BatchNorm) -> tuple[Tensor, Tensor]:
    """The layer's running mean and its running variance with epsilon, as floats."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean.float(), layer.running_var.float() + layer.eps


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance per channel of (N, C, ...), from E[x] and E[x²]: ten times as fast as `var_mean` on a
    CPU.
    """
    dims = [d for d in range(x.dim()) if d != 1]
    wide = torch.promote_types(x.dtype, torch.float32)
    mean, second = x.mean(dims, dtype=wide), x.square().mean(dims, dtype=wide)
    return mean, (second - mean.square()).clamp_min(0)


def normalised_distance(mean: Tensor, variance: Tensor, target_mean: Tensor, target_variance: Tensor) -> Tensor:
    """mean_c [ (μ_c - μ*_c)² / σ*²_c + (σ²_c / σ*²_c - 1)² ], a scalar.

    0 for equal statistics; 1 for means one standard deviation apart, or for twice the variance.
    """
    return ((mean - target_mean).square() / target_variance + (variance / target_variance - 1).square()).mean()


def input_loss(x_norm: Tensor) -> Tensor:
    """The distance of a batch's pixels from mean 0 and variance 1 per channel, a scalar.

    A checkpoint's normalisation gives the mean and variance of its training images, so every network has this one layer
    of statistics.
    """
    mean, variance = channel_moments(x_norm)
    return normalised_distance(mean, variance, torch.zeros_like(mean), torch.ones_like(variance))


class FusedBatchNorm(torch.autograd.Function):
    """x -> (a x + b, E[x], E[x²] - E[x]²) per channel of (N, C, ...): a frozen batch-norm layer and its batch
    statistics, which are those of every n-th row of maps, n = `stride`.

    Backward, for M values per channel that are read, gradients g of the output, g_μ of the mean, g_v of the variance:

        dx = a g + (2 g_v / M) x + (g_μ - 2 g_v μ) / M in the rows that are read, and a g in the others.

    Statistics and their gradients are float32, whatever the type of the maps.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale_C: Tensor, shift_C: Tensor, stride: int = 1
    ) -> tuple[Tensor, Tensor, Tensor]:
        quick = x.device.type == "cpu" and is_channels_last(x)
        read = every_nth_row(x, stride)
        if quick:
            # In this layout the CPU's batch-norm kernels are up to 20 times as fast as its reductions; in the other
            # they are slower. The statistics have the type of the zeros and ones, which are not changed.
            read = read.contiguous(memory_format=torch.channels_last)
            mean, variance = torch.batch_norm_update_stats(read, *nothing(scale_C), 0.0)
        else:
            mean, variance = channel_moments(read)
        ctx.save_for_backward(read, scale_C, mean)
        ctx.stride = stride
        return affine(x, scale_C, shift_C, quick), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        read, scale_C, mean = ctx.saved_tensors
        g, g_mean, g_variance = gradients
        values = read.numel() // read.shape[1]
        slope, offset = 2 * g_variance / values, (g_mean - 2 * g_variance * mean) / values
        quick = g.device.type == "cpu" and is_channels_last(g)
        if ctx.stride == 1:
            dx = affine(g, scale_C, offset, quick).addcmul_(read, across(slope, read).to(read.dtype))
        else:
            dx = affine(g, scale_C, torch.zeros_like(offset), quick)
            dx[:, :, :: ctx.stride] += affine(read, slope, offset, quick)
        return dx, None, None, None


def every_nth_row(x: Tensor, stride: int) -> Tensor:
    """A view of the maps (N, C, H, W); x itself, of any shape, where every row is read."""
    return x if stride == 1 else x[:, :, ::stride]


def affine(x: Tensor, scale_C: Tensor, shift_C: Tensor, quick: bool) -> Tensor:
    """a x + b per channel, in the type of x; `quick` by the CPU's batch-norm kernel."""
    if quick:
        return F.batch_norm(x, *nothing(scale_C), scale_C, shift_C, eps=0.0)
    return torch.addcmul(across(shift_C, x).to(x.dtype), x, across(scale_C, x).to(x.dtype))


def nothing(values_C: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and variance of channels that are normalised already."""
    return torch.zeros_like(values_C), torch.ones_like(values_C)


def is_channels_last(x: Tensor) -> bool:
    """Whether the layout is channels-last only. Maps of one pixel have both layouts."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def across(values_C: Tensor, x: Tensor) -> Tensor:
    """Values per channel, (C,), in the shape that broadcasts over x (N, C, ...)."""
    return values_C.view(1, -1, *[1] * (x.dim() - 2))


# Layers whose forward pass is known; a subclass may compute something else.
FUSED = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@contextmanager
def watch_batch_norm(model: nn.Module, sampled: bool = False) -> Iterator[BatchStatistics]:
    """Record the statistics (`BatchStatistics`) of every forward pass inside the `with` block. Afterwards the model is
    as before.

    Layers of PyTorch's own classes in evaluation mode are replaced by fused ones; other layers get a hook.
    """
    statistics = BatchStatistics(sampled)
    layers = batch_norm_layers(model)
    fused = [layer for layer in layers if type(layer) in FUSED and not layer.training]
    handles = [layer.register_forward_pre_hook(statistics.record) for layer in layers if layer not in fused]
    try:
        with replaced({layer: fused_forward(layer, statistics) for layer in fused}):
            yield statistics
    finally:
        for handle in handles:
            handle.remove()


def fused_forward(layer: BatchNorm, statistics: BatchStatistics) -> Callable[[Tensor], Tensor]:
    mean, variance = running_statistics(layer)
    scale = variance.rsqrt() if layer.weight is None else layer.weight.detach().float() * variance.rsqrt()
    shift = -mean * scale if layer.bias is None else layer.bias.detach().float() - mean * scale

    def forward(x: Tensor) -> Tensor:
        y, batch_mean, batch_variance = FusedBatchNorm.apply(x, scale, shift, statistics.stride(x))
        statistics.moments[layer] = (batch_mean, batch_variance)
        return y

    return forward
