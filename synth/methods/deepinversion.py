"""DeepInversion: images made from noise by gradient descent through a frozen teacher (Yin et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.basics.cuda_graph import Replayed
from synth.basics.errors import UsageError, UserError
from synth.basics.out_of_memory import by_settings
from synth.basics.ticks import stages, tick
from synth.checkpoint.arithmetic import computed
from synth.checkpoint.batch_norm import BatchStatistics, batch_norm_layers, input_loss, watch_batch_norm
from synth.checkpoint.classifier import Classifier, seen_by, to_uint8
from synth.checkpoint.fitting import fitting
from synth.checkpoint.image_norms import image_norm_layers
from synth.methods import generator
from synth.methods.deepinversion_settings import PHOTO_PRESETS as PHOTO_PRESETS  # a method's file has its presets
from synth.methods.deepinversion_settings import PRESETS as PRESETS
from synth.methods.deepinversion_settings import THUMBNAIL_PRESETS as THUMBNAIL_PRESETS
from synth.methods.deepinversion_settings import DeepInversionSettings
from synth.methods.dropped_patches import Dropping, find_blocks
from synth.methods.generator import GeneratorSettings
from synth.methods.losses import agreement, blur
from synth.methods.multi_crop import Draws, Ranges, Size, draw, falling, resize, seen_as_drawn
from synth.methods.natural import natural_noise
from synth.methods.networks import ClassGenerator
from synth.methods.patches import instead_of_statistics, refuse_idle_patches, watch_patches
from synth.methods.presets import Form, form_of

SETTINGS = DeepInversionSettings

COARSEST = 96  # pixels per side; networks for photographs see little in fewer
STROKE = 4  # times that the noise of a smooth start is blurred, until it is as wide as a stroke of a digit
FEWEST_REPLAYED = 20  # steps of one resolution that are worth a CUDA graph, whose rehearsals take as long as four
WINDOW = 10  # steps; the mean loss over them is compared with that over the steps before


def check(teacher: Classifier, settings: DeepInversionSettings) -> None:
    """Raise UserError if the method cannot work with this teacher, UsageError if a setting has no effect."""
    if settings.jitter and draws_each_step(settings):
        raise UsageError("--jitter has no effect on crops, which --roll shifts: leave it out, or give --roll instead")
    refuse_idle_patches(teacher, settings.patches)
    if settings.drop_patches and find_blocks(teacher) is None:
        raise UserError(
            f"{teacher.card.architecture} has no row of equal blocks that compute any number of patches, as a ViT has: "
            "leave out --drop-patches"
        )


def instead(teacher: Classifier, settings: DeepInversionSettings) -> str:
    """What the method does instead for a teacher without batch norm, in one line; empty if it has batch norm."""
    if batch_norm_layers(teacher.net):
        return ""
    found = {
        "a start with the spectrum of photographs": starts_natural(teacher, settings) and not settings.warm_start,
        "patch-similarity entropy": settings.patches and image_norm_layers(teacher.net),
        "smoothness": settings.smoothing or settings.tv_squared,
    }
    return instead_of_statistics(teacher, [name for name, holds in found.items() if holds], pixels=bool(settings.pixel))


def starts_natural(teacher: Classifier, settings: DeepInversionSettings) -> bool:
    """Whether the first images have the spectrum of photographs."""
    if settings.natural is not None:
        return settings.natural
    return teacher.card.input_shape[0] == 3 and not batch_norm_layers(teacher.net)


def uses_generator(settings: DeepInversionSettings) -> bool:
    return settings.warm_start


def uses_student(settings: DeepInversionSettings) -> bool:
    return settings.compete > 0 or settings.warm_start


def brief(settings: DeepInversionSettings, images: int) -> DeepInversionSettings:
    """The settings of one step on this many images, which shows what memory a batch takes."""
    return replace(settings, batch_size=images, steps=1, coarse_steps=0, warmup=0, warm_start=False)


def prepare(
    teacher: Classifier,
    settings: DeepInversionSettings,
    seed: int,
    student: Classifier | None = None,
    classes: tuple[int, ...] | None = None,
) -> ClassGenerator | None:
    """With `warm_start`, the generator of these classes (None means all) whose images are optimised further.

    It is trained with the generator method's own settings, except for those that follow from the teacher (no batch
    norm), the data (flips) or the machine (arithmetic; half the batch where memory is short).
    """
    if not settings.warm_start:
        return None
    own = generators_settings(settings)

    def train(settings: GeneratorSettings, images: int = 0) -> ClassGenerator:
        return generator.prepare(teacher, settings, seed, student, classes)

    return by_settings(train, fitting(teacher, own, generator.brief, train, key="warm start"))


def generators_settings(settings: DeepInversionSettings) -> GeneratorSettings:
    """The settings of a warm start's generator."""
    own = GeneratorSettings(flip=settings.flip, precision=settings.precision, layout=settings.layout)
    return own if settings.bn else replace(own, bn=0.0)


def training_words(teacher: Classifier, settings: DeepInversionSettings, device: str) -> str:
    """How much the training of a warm start's generator is, and about how long it takes on this device, in words."""
    return generator.training_words(teacher, generators_settings(settings), device)


def synthesise(
    teacher: Classifier,
    labels_B: Tensor,
    settings: DeepInversionSettings,
    rng: torch.Generator,
    network: ClassGenerator | None = None,
    student: Classifier | None = None,
) -> Tensor:
    """One image per label: argmin_x CE(T(x), y) + α_tv TV(x) + α_l2 ||x|| + α_bn R_bn(x) (equations 1 to 4).

    With a student, + α_c (1 - JS(T(x) || S(x))), so that teacher and student disagree (Adaptive DeepInversion).

    Args:
        teacher: frozen, on the device to work on.
        labels_B: class indices (B,) to generate.
        rng: a random source on the CPU; the same state gives the same images on one kind of device.
        network: makes the first images if `warm_start` is on.
        student: frozen, on the teacher's device.

    Returns:
        uint8 images (B, C, H, W) on the CPU.

    Raises:
        UserError: the loss is not finite.
    """
    batches = max(1, math.ceil(len(labels_B) / settings.batch_size))
    parts = stages(labels_B.tensor_split(batches))
    return torch.cat([invert(teacher, labels, settings, rng, network, student) for labels in parts])


def invert(
    teacher: Classifier,
    labels_B: Tensor,
    settings: DeepInversionSettings,
    rng: torch.Generator,
    network: ClassGenerator | None = None,
    student: Classifier | None = None,
) -> Tensor:
    """One batch of images, optimised in normalised pixels and clamped to the range of real pixels."""
    labels_B = labels_B.to(teacher.mean.device)
    lowest, highest = (0 - teacher.mean) / teacher.std, (1 - teacher.mean) / teacher.std
    channels, *size = teacher.card.input_shape
    whole = (size[0], size[1])
    if settings.warm_start:
        assert network is not None, "prepare trains it"
        z = torch.randn(len(labels_B), network.card.z, generator=rng).to(teacher.mean.device)
        with torch.no_grad():
            x_norm = network(z, labels_B)
    else:
        noise = torch.randn(len(labels_B), channels, *whole, generator=rng).to(teacher.mean.device)
        start = "natural" if starts_natural(teacher, settings) else settings.start
        x_norm = first_images(noise, lowest, start).clamp(lowest, highest)
    courses = phases(settings, whole)
    dropping = Dropping(find_blocks(teacher) if settings.drop_patches else None, settings.drop_patches)
    if courses[0].shrink > 1:
        x_norm = F.avg_pool2d(x_norm, courses[0].shrink)
    for course in stages(courses, [len(course.steps) for course in courses]):
        x_norm = resize(x_norm, course.size(whole))
        pixel_range = (lowest, highest)
        x_norm = optimise_images(x_norm, teacher, labels_B, settings, course.steps, pixel_range, rng, student, dropping)
    return to_uint8(resize(x_norm, whole) * teacher.std + teacher.mean).cpu()


@dataclass(frozen=True)
class Phase:
    """Some of the steps, with images whose sides are divided by `shrink`."""

    steps: range
    shrink: int

    def size(self, whole: Size) -> Size:
        return whole[0] // self.shrink, whole[1] // self.shrink


def phases(settings: DeepInversionSettings, whole: Size) -> list[Phase]:
    """The coarse steps, at half the resolution or at several that double, and then the others at the whole one.

    The coarsest images have at least 96 pixels per side, or are half as large as the whole ones. The teacher sees them
    enlarged. At their own size a step would take a third of the time, but the objects would be too small for it.
    """
    first = settings.coarse_steps
    coarse = round(settings.steps * first) if first < 1 else int(first)
    halvings = max(1, int(math.log2(min(whole) / COARSEST)))
    bounds = [*(round(coarse * k / halvings) for k in range(halvings + 1)), settings.steps]
    return [Phase(range(a, b), 2 ** (halvings - k)) for k, (a, b) in enumerate(pairwise(bounds)) if a < b]


def first_images(noise: Tensor, lowest: Tensor, start: str) -> Tensor:
    """The start of the descent in normalised pixels, from standard normal noise (B, C, H, W). `lowest` is black.

    A smoothed gradient cannot remove the noise of single pixels, and after ten steps much of it is left. Smooth noise
    makes the images differ as well, and the gradient can change it.
    """
    if start == "noise":
        return noise
    if start == "natural":
        return natural_noise(noise)
    if start == "dark":
        return lowest + 0.3 + 0.3 * noise
    smooth = blur(noise, STROKE)
    return lowest + 0.3 + smooth / smooth.std()


def optimise_images(
    x_norm: Tensor,
    teacher: Classifier,
    labels_B: Tensor,
    settings: DeepInversionSettings,
    steps: range,
    pixel_range: tuple[Tensor, Tensor],
    rng: torch.Generator,
    student: Classifier | None,
    dropping: Dropping,
) -> Tensor:
    """Take these steps of Adam on the images, at their own resolution. Raises UserError if the loss diverges."""
    x_norm = x_norm.detach().clone().requires_grad_(True)
    optimiser = adam(x_norm, settings.lr)
    loss = torch.zeros(())
    losses: list[Tensor] = []
    watching = watch_patches(teacher.net, settings.patches)
    dropping.resize(x_norm)
    with (
        computed(teacher, settings),
        computed(student, settings) if student else nullcontext(),
        watch_batch_norm(teacher.net, sampled=may_sample(teacher, settings)) as statistics,
        watching as patch_prior,
        dropping.hooked(),
    ):

        def descend(*draws: Tensor, done: float = 0.0) -> Tensor:
            """Take one step; `done` is the share of the steps that are then taken. The result is the loss."""
            optimiser.zero_grad(set_to_none=True)
            seen = dropping.look(x_norm, partial(view, draws=draws, teacher=teacher, settings=settings, rng=rng))
            logits_BK = teacher.logits(seen)
            loss = settings.ce * F.cross_entropy(logits_BK, labels_B) + image_prior(seen, settings)
            loss = loss + statistics_prior(seen, statistics, settings)
            if patch_prior:
                loss = loss + patch_prior()
            if student is not None and settings.compete:
                by_student = seen_by(student, seen.float(), teacher)
                loss = loss + settings.compete * agreement(logits_BK, student.logits(by_student))
            loss.backward()
            assert x_norm.grad is not None
            x_norm.grad = blur(x_norm.grad, settings.smoothing)
            dropping.learn(x_norm, done)
            optimiser.step()
            with torch.no_grad():
                x_norm.clamp_(*pixel_range)
            return loss.detach()

        replayed = None
        if not (patch_prior or settings.drop_patches) and worth_a_graph(x_norm, settings, len(steps)):
            alike = draw_view(len(x_norm), steps.start, settings, torch.Generator())
            replayed = captured(descend, x_norm, optimiser, alike)
        for step in steps:
            set_rate(optimiser, settings.lr * schedule(step, settings))
            draws = draw_view(len(x_norm), step, settings, rng)
            loss = replayed(*draws) if replayed else descend(*draws, done=(step + 1) / settings.steps)
            done = step - steps.start + 1
            tick(done, len(steps), lambda: (to_uint8(x_norm.detach() * teacher.std + teacher.mean), labels_B))
            if settings.plateau and at_plateau(losses, loss.clone(), settings.plateau):
                break
    if not math.isfinite(loss.item()):
        raise UserError(
            "the synthesis diverged (its loss is not a number): the teacher gives NaN, or --lr is too high for it"
        )
    return x_norm.detach()


def adam(x_norm: Tensor, lr: float) -> torch.optim.Adam:
    """Adam for the images. On CUDA its rate and its count of steps are on the device, so that a graph can hold it."""
    rate = torch.tensor(lr, device=x_norm.device) if x_norm.is_cuda else lr
    return torch.optim.Adam([x_norm], lr=rate, betas=(0.5, 0.9), capturable=x_norm.is_cuda)


def set_rate(optimiser: torch.optim.Adam, lr: float) -> None:
    group = optimiser.param_groups[0]
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def worth_a_graph(x_norm: Tensor, settings: DeepInversionSettings, steps: int) -> bool:
    """Whether a CUDA graph can hold a step, and saves more than its rehearsals cost.

    A graph repeats the same kernels on tensors, so nothing may depend on a number that the processor draws for a step.
    """
    drawn_as_numbers = settings.jitter > 0 or (settings.flip and not draws_each_step(settings))
    return x_norm.is_cuda and not drawn_as_numbers and steps >= FEWEST_REPLAYED


def captured(
    descend: Callable[..., Tensor], x_norm: Tensor, optimiser: torch.optim.Adam, draws: Draws
) -> Replayed | None:
    """The step as a CUDA graph, before the first step; None if the network does not allow it, as one that reads a
    number from the device. `draws` are like those of the steps.
    """
    first = x_norm.detach().clone()

    def changed() -> list[tuple[Tensor, Tensor]]:
        kept = [value for value in optimiser.state[x_norm].values() if isinstance(value, Tensor)]
        return [(x_norm, first), *((value, torch.zeros_like(value)) for value in kept)]

    try:
        return Replayed(descend, draws, changed, x_norm.device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return None


def at_plateau(losses: list[Tensor], loss: Tensor, share: float) -> bool:
    """Whether the mean loss of the last ten steps is less than `share` below that of the ten steps before.

    Reads the losses, and so waits for the device, only every tenth step.
    """
    losses.append(loss)
    if len(losses) % WINDOW or len(losses) < 2 * WINDOW:
        return False
    before, now = torch.stack(losses[-2 * WINDOW :]).view(2, WINDOW).mean(1).tolist()
    return now > (1 - share) * before


def may_sample(teacher: Classifier, settings: DeepInversionSettings) -> bool:
    """Whether some of the rows of large maps are enough for their statistics: of photographs that are shifted at random
    in each step. The published loss reads all.
    """
    photographs = form_of(teacher.card.input_shape) is Form.PHOTO
    return photographs and settings.roll > 0 and settings.bn_loss == "normalised"


def statistics_prior(x_norm: Tensor, statistics: BatchStatistics, settings: DeepInversionSettings) -> Tensor:
    """α_bn R_bn(x) + α_pixel R_pixel(x)."""
    total = torch.zeros((), device=x_norm.device)
    if settings.bn and statistics.moments:
        by_name = {"normalised": statistics.normalised_loss, "published": statistics.published_loss}
        total = total + settings.bn * by_name[settings.bn_loss](settings.first_bn)
    if settings.pixel:
        total = total + settings.pixel * input_loss(x_norm)
    return total


def schedule(step: int, settings: DeepInversionSettings) -> float:
    """The factor on the learning rate: linear warm-up, then half a cosine to 0."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


def draws_each_step(settings: DeepInversionSettings) -> bool:
    """Whether the teacher sees random crops, and not the images as they are, shifted by `jitter` or mirrored."""
    return settings.crop < 1 or settings.roll > 0 or settings.each


def draw_view(images: int, step: int, settings: DeepInversionSettings, rng: torch.Generator) -> Draws:
    """What is drawn for the crops of this step, on the CPU; nothing where there are none."""
    if not draws_each_step(settings):
        return ()
    crop = falling(1.0, settings.crop, step / settings.steps)
    return draw(images if settings.each else 1, Ranges(crop, settings.roll, settings.flip), rng)


def view(x: Tensor, draws: Draws, teacher: Classifier, settings: DeepInversionSettings, rng: torch.Generator) -> Tensor:
    """What the teacher sees of the images in this step."""
    _, height, width = teacher.card.input_shape
    if draws:
        dtype = torch.bfloat16 if teacher.arithmetic.bfloat16 else torch.float32
        return seen_as_drawn(x, (height, width), draws, dtype)
    return augment(resize(x, (height, width)), settings, rng)


def augment(x: Tensor, settings: DeepInversionSettings, rng: torch.Generator) -> Tensor:
    """Shift the batch by up to `jitter` pixels with wrap-around and, if flips are on, mirror it half of the time."""
    if settings.jitter:
        dy, dx = torch.randint(-settings.jitter, settings.jitter + 1, (2,), generator=rng).tolist()
        x = torch.roll(x, (dy, dx), dims=(2, 3))
    if settings.flip and torch.rand((), generator=rng).item() < 0.5:
        x = torch.flip(x, dims=(3,))
    return x


def image_prior(x: Tensor, settings: DeepInversionSettings) -> Tensor:
    """α_tv1 mean|Δx| + α_tv2 Σ_d ||Δ_d x||₂ + α_tvs mean (Δx)² + α_l2 ||x||₂, where Δ_d are differences in four
    directions.

    The Euclidean norms are over the whole batch, as in the authors' code, to which the published weights belong.
    """
    total = torch.zeros((), device=x.device)
    if settings.tv_l1 or settings.tv_l2 or settings.tv_squared or settings.l2:
        x = x.float()  # crops may be bfloat16
    if settings.tv_l1 or settings.tv_l2 or settings.tv_squared:
        differences = (
            x[:, :, :, :-1] - x[:, :, :, 1:],
            x[:, :, :-1, :] - x[:, :, 1:, :],
            x[:, :, 1:, :-1] - x[:, :, :-1, 1:],
            x[:, :, :-1, :-1] - x[:, :, 1:, 1:],
        )
        if settings.tv_l1:
            total = total + settings.tv_l1 * torch.stack([d.abs().mean() for d in differences]).sum()
        if settings.tv_l2:
            total = total + settings.tv_l2 * torch.stack([d.norm() for d in differences]).sum()
        if settings.tv_squared:
            total = total + settings.tv_squared * torch.stack([d.square().mean() for d in differences]).sum()
    if settings.l2:
        total = total + settings.l2 * x.norm()
    return total
