"""A class-conditional generator: trained once against the teacher, then sampled (after DAFL, Chen et al. 2019)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from synth.basics.errors import UserError
from synth.basics.out_of_memory import by_rows
from synth.basics.settings import MOST_IN_BATCH, MOST_STEPS, ComputeSettings, setting
from synth.basics.ticks import tick
from synth.checkpoint.arithmetic import arithmetic_note, computed
from synth.checkpoint.batch_norm import (
    BatchStatistics,
    batch_norm_layers,
    estimating_anew,
    input_loss,
    watch_batch_norm,
)
from synth.checkpoint.classifier import Classifier, seen_by, to_uint8
from synth.checkpoint.layers import last_linear, watch_features
from synth.methods.losses import activation_loss, blur, disagreement, diversity_loss, total_variation
from synth.methods.multi_crop import Ranges, random_views
from synth.methods.networks import ClassGenerator, GeneratorCard
from synth.methods.patches import instead_of_statistics, refuse_idle_patches, watch_patches
from synth.methods.training_time import words_for


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings(ComputeSettings):
    """A class-conditional generator, trained once, then sampled. Adds to DeepInversion's losses those of mode seeking
    and DAFL.

    The defaults are our own, chosen on training images only.
    """

    train_steps: int = setting(600, "training steps of the generator, once per run", at_least=1, most=MOST_STEPS)
    batch_size: int = setting(200, "images per training step", at_least=4, most=MOST_IN_BATCH)
    lr: float = setting(3e-3, "Adam's peak learning rate for the generator", above=0)
    z: int = setting(64, "length of the generator's noise", at_least=1, at_most=65536, rare=True)
    channels: int = setting(0, "channels of the generator; 0 sizes it to the teacher", at_least=0, at_most=4096)
    ce: float = setting(1.0, "weight of the teacher's cross-entropy towards the wanted class", at_least=0, rare=True)
    bn: float = setting(10.0, "weight of the batch-norm statistics loss; 0 leaves it out", at_least=0, rare=True)
    pixel: float = setting(
        2.0,
        "weight of the pixels' mean and variance, known from the checkpoint's normalisation",
        at_least=0,
        rare=True,
    )
    tv_squared: float = setting(0.1, "weight of the total variation's squares, per pixel", at_least=0, rare=True)
    smoothing: int = setting(
        0,
        "times that the images' gradient is blurred by a 3x3 binomial filter",
        at_least=0,
        at_most=32,
        rare=True,
    )
    diversity: float = setting(
        1.0, "weight of mode seeking, which makes different noise give different images", at_least=0, rare=True
    )
    activation: float | None = setting(
        None,
        "weight of strong features (DAFL); by default 0.1 for teachers without batch norm, else 0",
        at_least=0,
        rare=True,
    )
    patches: float = setting(
        0.0,
        "weight of the patch-similarity entropy, for teachers with LayerNorm or GroupNorm (PSAQ-ViT; there 1)",
        at_least=0,
        rare=True,
    )
    adversarial: float = setting(
        1.0, "weight of the disagreement with --student, if one is given", at_least=0, rare=True
    )
    flip: bool = setting(False, "mirror images at random; right for natural images, wrong for digits")
    crop: float = setting(
        1.0,
        "the teacher sees random crops of at least this share of the image; 1 shows whole images",
        above=0,
        at_most=1,
        rare=True,
    )
    roll: float = setting(
        0.0, "largest random shift as a share of the side, with wrap-around", at_least=0, at_most=0.5, rare=True
    )


SETTINGS = GeneratorSettings
PRESETS: dict[str, GeneratorSettings] = {}
# For photographs: smaller batches, of which the teacher sees crops, shifts and mirror images.
PHOTO_PRESETS = {"tuned": GeneratorSettings(batch_size=50, crop=0.3, roll=0.07, flip=True)}


SAMPLE_BATCH = 500  # images drawn at once; it affects the content by rounding only
CHANNELS = (8, 16, 32, 64, 128, 256)
ACTIVATION = 0.1  # weight of strong features for teachers without batch norm
FLOP_OF_TEACHER = 4  # a generator's forward pass costs at most this many forward passes of its teacher
SETTLE_BATCHES = 20  # forward passes over which the generator's own batch norm is averaged at the end

Log = Callable[[int, dict[str, float]], None]


def check(teacher: Classifier, settings: GeneratorSettings) -> None:
    """Raise UserError if the method cannot work with this teacher, UsageError if a setting has no effect."""
    refuse_idle_patches(teacher, settings.patches)
    if settings.activation and last_linear(teacher.net) is None:
        raise UserError(
            f"{teacher.card.architecture} has no linear layer, whose inputs are the features of --activation: leave "
            "out --activation"
        )


def instead(teacher: Classifier, settings: GeneratorSettings) -> str:
    """What the method does instead for a teacher without batch norm, in one line; empty if it has batch norm."""
    if batch_norm_layers(teacher.net):
        return ""
    terms = [("strong features", activation_weight(teacher, settings)), ("patch-similarity entropy", settings.patches)]
    return instead_of_statistics(teacher, [name for name, weight in terms if weight], pixels=bool(settings.pixel))


def activation_weight(teacher: Classifier, settings: GeneratorSettings) -> float:
    """The weight of strong features. By default it is above 0 only for a teacher without batch norm that has them."""
    if settings.activation is not None:
        return settings.activation
    return 0.0 if batch_norm_layers(teacher.net) or last_linear(teacher.net) is None else ACTIVATION


def uses_generator(settings: GeneratorSettings) -> bool:
    return True


def brief(settings: GeneratorSettings, images: int) -> GeneratorSettings:
    """The settings of one training step on this many images, which shows what memory a batch takes."""
    return dataclasses.replace(settings, batch_size=images, train_steps=1)


def prepare(
    teacher: Classifier,
    settings: GeneratorSettings,
    seed: int,
    student: Classifier | None = None,
    classes: tuple[int, ...] | None = None,
    log: Log = lambda step, values: None,
) -> ClassGenerator:
    """Train the generator of these classes (None means all). Returns it frozen, on the teacher's device.

    min_G  CE(T(x), y) + α_bn R_bn(x) + α_pixel R_pixel(x) + α_tv TV(x) + α_div R_div - α_act |f(x)| - α_adv KL(T(x) ||
    S(x)), where x = G(z, y), z ~ N(0, I), and every class is equally frequent in a batch. `log` gets the terms of some
    steps.

    Raises:
        UserError: the loss is not finite.
    """
    network = untrained(teacher, settings, seed, student, classes).to(teacher.mean.device)
    train_generator(network, teacher, settings, torch.Generator().manual_seed(seed), student, log)
    return settle(network, settings, torch.Generator().manual_seed(seed))


def training_words(teacher: Classifier, settings: GeneratorSettings, device: str) -> str:
    """How much the training is, and about how long it takes on this device, in words."""
    return words_for(settings.train_steps, settings.batch_size, device, one_step(teacher, settings))


def one_step(teacher: Classifier, settings: GeneratorSettings) -> Callable[[int], None]:
    """A function that takes a training step of a generator on this many images."""
    network, rng = untrained(teacher, settings, seed=0).to(teacher.mean.device), torch.Generator().manual_seed(0)

    def step(images: int) -> None:
        train_generator(network, teacher, brief(settings, images), rng, None, lambda step, values: None)

    return step


def synthesise(
    teacher: Classifier,
    labels_B: Tensor,
    settings: GeneratorSettings,
    rng: torch.Generator,
    network: ClassGenerator | None = None,
) -> Tensor:
    """One image per label, uint8 (B, C, H, W) on the CPU: x = G(z, y), z ~ N(0, I)."""
    assert network is not None, "prepare trains it"
    device = teacher.mean.device
    z = torch.randn(len(labels_B), network.card.z, generator=rng)

    @torch.no_grad()
    def images(z: Tensor, labels: Tensor) -> Tensor:
        return to_pixels(teacher, network(z.to(device), labels.to(device)))

    return by_rows(images, SAMPLE_BATCH, z, labels_B)


def to_pixels(teacher: Classifier, x_norm: Tensor) -> Tensor:
    return to_uint8(x_norm * teacher.std + teacher.mean).cpu()


def untrained(
    teacher: Classifier,
    settings: GeneratorSettings,
    seed: int,
    student: Classifier | None = None,
    classes: tuple[int, ...] | None = None,
) -> ClassGenerator:
    assert teacher.digest is not None
    every = classes is None or set(classes) == set(range(teacher.card.num_classes))
    card = GeneratorCard(
        z=settings.z,
        channels=settings.channels or 1,
        image_shape=teacher.card.input_shape,
        num_classes=teacher.card.num_classes,
        mean=teacher.card.mean,
        std=teacher.card.std,
        teacher_sha256=teacher.digest,
        student_sha256=student.digest if student else None,
        classes=None if every else tuple(sorted(classes or ())),
        training={"seed": seed, "settings": dataclasses.asdict(settings), **arithmetic_note(settings, teacher)},
    )
    if not settings.channels:
        card = dataclasses.replace(card, channels=channels_for(teacher, card))
    return ClassGenerator.untrained(card, seed)


def channels_for(teacher: Classifier, card: GeneratorCard) -> int:
    """The channels of the widest generator whose forward pass costs at most four of the teacher's."""
    limit = FLOP_OF_TEACHER * teacher.flop
    fitting = [c for c in CHANNELS if generator_flop(dataclasses.replace(card, channels=c)) <= limit]
    return max(fitting, default=CHANNELS[0])


def generator_flop(card: GeneratorCard) -> int:
    """Floating-point operations of the forward pass for one image."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        ClassGenerator(card)(torch.zeros(2, card.z), torch.full((2,), card.drawn[0]))
    return counter.get_total_flops() // 2


def train_generator(
    network: ClassGenerator,
    teacher: Classifier,
    settings: GeneratorSettings,
    rng: torch.Generator,
    student: Classifier | None,
    log: Log,
) -> None:
    """Train the network in place, by Adam with a learning rate that falls to 0 as a cosine. Raises UserError if it
    diverges.
    """
    network.train().requires_grad_(True)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.lr, betas=(0.5, 0.999))
    every = max(1, settings.train_steps // 20)
    with computed(teacher, settings), watch_batch_norm(teacher.net) as statistics:
        if teacher.arithmetic.channels_last:
            network.to(memory_format=torch.channels_last)
        for step in range(settings.train_steps):
            optimiser.param_groups[0]["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.train_steps))
            z, labels = draw(network, settings.batch_size, rng)
            optimiser.zero_grad(set_to_none=True)
            with drawing(teacher):
                x_norm = network(z, labels)
            terms = objective(x_norm, z, labels, teacher, statistics, settings, rng, student)
            loss = torch.stack(list(terms.values())).sum()
            loss.backward()
            optimiser.step()
            tick(step + 1, settings.train_steps)
            if step % every == 0 or step == settings.train_steps - 1:
                values = {name: value.item() for name, value in terms.items()}
                if not math.isfinite(sum(values.values())):
                    raise UserError(
                        "the generator's training diverged (its loss is not a number): the teacher gives NaN, or --lr "
                        "is too high for it"
                    )
                log(step, values)


def drawing(teacher: Classifier) -> AbstractContextManager[object]:
    """The generator is computed in the teacher's precision inside the `with` block; its pixels stay float32."""
    if not teacher.arithmetic.bfloat16:
        return nullcontext()
    return torch.autocast(teacher.mean.device.type, torch.bfloat16)


def draw(network: ClassGenerator, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise (N, Z) and classes (N,) of a batch. Only the network's own classes occur, each equally often.

    Each class in the batch has two images or more, which the diversity term needs; an odd `count` leaves one class with
    one.
    """
    device, classes = network.mean.device, torch.tensor(network.card.drawn)
    z = torch.randn(count, network.card.z, generator=rng)
    half = classes[torch.randperm(len(classes), generator=rng)[torch.arange(-(-count // 2)) % len(classes)]]
    return z.to(device), half.repeat(2)[:count].to(device)


def objective(
    x_norm: Tensor,
    z: Tensor,
    labels: Tensor,
    teacher: Classifier,
    statistics: BatchStatistics,
    settings: GeneratorSettings,
    rng: torch.Generator,
    student: Classifier | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of the training loss, by name."""
    if settings.smoothing and x_norm.requires_grad:
        x_norm.register_hook(lambda gradient: blur(gradient, settings.smoothing))
    seen = seen_by_teacher(x_norm, settings, rng)
    activation = activation_weight(teacher, settings)
    watching: AbstractContextManager[list[Tensor]] = nullcontext([])
    if activation:
        watching = watch_features(teacher.net)
    with watching as features, watch_patches(teacher.net, settings.patches) as patch_prior:
        logits = teacher.logits(seen)
    terms = {"ce": settings.ce * F.cross_entropy(logits, labels)}
    if patch_prior:
        terms["patches"] = patch_prior().to(x_norm.device)
    if settings.bn and statistics.moments:
        terms["bn"] = settings.bn * statistics.normalised_loss()
    if settings.pixel:
        terms["pixel"] = settings.pixel * input_loss(seen)
    if settings.tv_squared:
        terms["tv"] = settings.tv_squared * total_variation(x_norm)
    if settings.diversity:
        # Detached: where the noise is optimised too, moving it closer together would be the cheapest way to a low loss.
        terms["diversity"] = settings.diversity * diversity_loss(z.detach(), x_norm, labels)
    if activation:
        terms["activation"] = activation * activation_loss(features[0])
    if student is not None and settings.adversarial:
        by_student = seen_by(student, seen, teacher)
        terms["adversarial"] = -settings.adversarial * disagreement(logits, student.logits(by_student))
    return terms


def seen_by_teacher(x_norm: Tensor, settings: GeneratorSettings, rng: torch.Generator) -> Tensor:
    """The views of the images that the teacher sees in one step: a crop, roll and mirror image of each, if they are
    on.
    """
    if settings.crop < 1 or settings.roll:
        ranges = Ranges(crop=settings.crop, roll=settings.roll, flip=settings.flip)
        return random_views(x_norm, (x_norm.shape[2], x_norm.shape[3]), ranges, each=True, rng=rng)
    if settings.flip and torch.rand((), generator=rng).item() < 0.5:
        return x_norm.flip(3)
    return x_norm


@torch.no_grad()
def settle(network: ClassGenerator, settings: GeneratorSettings, rng: torch.Generator) -> ClassGenerator:
    """Compute the generator's own batch-norm statistics anew, as those of the training lag behind, and freeze it."""
    with estimating_anew(network.train()):
        for _ in range(SETTLE_BATCHES):
            network(*draw(network, settings.batch_size, rng))
    return network.eval().requires_grad_(False)
