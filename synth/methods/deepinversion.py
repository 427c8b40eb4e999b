"""DeepInversion: images made from noise by gradient descent through a frozen teacher (Yin et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.errors import UserError
from synth.settings import DeepInversionSettings
from synth.statistics import batch_norm_layers, watch_batch_norm
from synth.teacher import Classifier, to_uint8

ExtraLoss = Callable[
    [Tensor, Tensor], Tensor
]  # of the images, normalised (B, C, H, W), and of the teacher's logits (B, K)


def check(teacher: Classifier, settings: DeepInversionSettings) -> None:
    """Raise UserError where the method can't work on this teacher."""
    if settings.bn > 0 and not batch_norm_layers(teacher):
        raise UserError(
            f"{teacher.card.architecture} has no batch-norm layers, whose statistics tell DeepInversion what training "
            "images looked like: use a teacher with batch norm, or --bn 0 to go on with the class and smoothness terms "
            "alone (add --tv-l2 0.001; expect poorer images)"
        )


def synthesise(
    teacher: Classifier,
    labels_B: Tensor,
    settings: DeepInversionSettings,
    generator: torch.Generator,
    extra_loss: ExtraLoss | None = None,
) -> Tensor:
    """One image a label: argmin_x CE(T(x), y) + α_tv TV(x) + α_l2 ||x|| + α_bn R_bn(x) (equations 1 to 4).

    Args:
        teacher: frozen, on the device to work on.
        labels_B: wanted class indices (B,).
        generator: a CPU generator; the same state gives the same images on one kind of device.
        extra_loss: added to the loss, such as the student's agreement in Adaptive DeepInversion.

    Returns:
        uint8 images (B, C, H, W) on the CPU.

    Raises:
        UserError: the loss is no longer a number.
    """
    batches = max(1, math.ceil(len(labels_B) / settings.batch_size))
    images = [invert(teacher, labels, settings, generator, extra_loss) for labels in labels_B.tensor_split(batches)]
    return torch.cat(images)


def invert(
    teacher: Classifier,
    labels_B: Tensor,
    settings: DeepInversionSettings,
    generator: torch.Generator,
    extra_loss: ExtraLoss | None = None,
) -> Tensor:
    """One batch of images, optimised in normalised pixels and held inside the range that real pixels have."""
    device = teacher.mean.device
    labels_B = labels_B.to(device)
    lowest, highest = (0 - teacher.mean) / teacher.std, (1 - teacher.mean) / teacher.std
    side = teacher.card.input_shape[1]
    step = 0
    x_norm = torch.empty(0)
    for resolution, steps in (
        (side // 2, settings.coarse_steps),
        (side, settings.steps - settings.coarse_steps),
    ):
        if steps == 0:
            continue
        x_norm = start(x_norm, (len(labels_B), teacher.card.input_shape[0], resolution), generator).to(device)
        x_norm.requires_grad_(True)
        optimiser = torch.optim.Adam([x_norm], lr=settings.lr, betas=(0.5, 0.9))
        with watch_batch_norm(teacher.net) as statistics:
            for _ in range(steps):
                optimiser.param_groups[0]["lr"] = settings.lr * schedule(step, settings)
                optimiser.zero_grad(set_to_none=True)
                seen = augment(upsample(x_norm, side), settings, generator)
                logits_BK = teacher.net(seen)
                loss = settings.ce * F.cross_entropy(logits_BK, labels_B)
                if settings.bn > 0:
                    bn_loss = (
                        statistics.normalised_loss(settings.first_bn)
                        if settings.bn_loss == "normalised"
                        else statistics.published_loss(settings.first_bn)
                    )
                    loss = loss + settings.bn * bn_loss
                loss = loss + image_prior(seen, settings)
                if extra_loss is not None:
                    loss = loss + extra_loss(seen, logits_BK)
                loss.backward()
                optimiser.step()
                with torch.no_grad():
                    x_norm.clamp_(lowest, highest)
                step += 1
        if not math.isfinite(loss.item()):
            raise UserError(
                "the synthesis diverged (its loss is not a number): the teacher gives NaN, or --lr is too high for it"
            )
        x_norm = x_norm.detach()
    return to_uint8(x_norm * teacher.std + teacher.mean).cpu()


def start(previous: Tensor, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Gaussian noise (B, C, S, S) in normalised pixels, or the previous resolution's images enlarged."""
    batch, channels, side = shape
    if previous.numel():
        return upsample(previous, side)
    return torch.randn(batch, channels, side, side, generator=generator)


def upsample(x: Tensor, side: int) -> Tensor:
    if x.shape[-1] == side:
        return x
    return F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)


def schedule(step: int, settings: DeepInversionSettings) -> float:
    """Learning rate factor: linear warm-up, then half a cosine to 0."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def augment(x: Tensor, settings: DeepInversionSettings, generator: torch.Generator) -> Tensor:
    """The batch shifted by up to `jitter` pixels with wrap-around, and mirrored half of the time where flips are on."""
    if settings.jitter:
        dy, dx = torch.randint(-settings.jitter, settings.jitter + 1, (2,), generator=generator).tolist()
        x = torch.roll(x, (dy, dx), dims=(2, 3))
    if settings.flip and torch.rand((), generator=generator).item() < 0.5:
        x = torch.flip(x, dims=(3,))
    return x


def image_prior(x: Tensor, settings: DeepInversionSettings) -> Tensor:
    """α_tv1 Σ|Δx| / n + α_tv2 Σ_d ||Δ_d x||₂ + α_l2 ||x||₂, with the differences Δ in four directions.

    The norms are over the whole batch, as in the authors' code, which the published weights belong to.
    """
    total = x.new_zeros(())
    if settings.tv_l1 or settings.tv_l2:
        differences = (
            x[:, :, :, :-1] - x[:, :, :, 1:],
            x[:, :, :-1, :] - x[:, :, 1:, :],
            x[:, :, 1:, :-1] - x[:, :, :-1, 1:],
            x[:, :, :-1, :-1] - x[:, :, 1:, 1:],
        )
        if settings.tv_l2:
            total = total + settings.tv_l2 * torch.stack([d.norm() for d in differences]).sum()
        if settings.tv_l1:
            total = total + settings.tv_l1 * torch.stack([d.abs().mean() for d in differences]).sum()
    if settings.l2:
        total = total + settings.l2 * x.norm()
    return total
