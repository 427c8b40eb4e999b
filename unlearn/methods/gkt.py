"""Gated knowledge transfer: a generator finds images that the student gets wrong; a gate keeps the forget classes out.

It needs the teacher only (Chundawat et al. 2023). The generator G and the student S are trained in turn:

    G:  max  mean_n KL(T(x_n) || S(x_n))                               x = G(z), z ~ N(0, I)
    S:  min  mean_n KL(T(x_n) || S(x_n)) + β L_at(T, S)                where p_f(x_n) < ε for all f in F

With other settings, the same loop is ISPF (`unlearn.methods.ispf`) or a mixture of both.

The published code has four accidents. The defaults leave them out; `--preset published` repeats them: - The student is
never in train mode, so batch norm works with its initial statistics. - The KL divergences of the student and of the
generator are divided by K as well. At ten classes, the published β of 250 is
  therefore 2,500 in the equation's units, and the generator's gradient is clipped only when it is ten times as large.
- All steps of a round, the generator's too, see the same noise. - The schedule of the generator's learning rate always
gets the loss of the untrained student. So the rate halves every 150
  rounds, whatever happens.

The published code halves the student's rate when the loss on real retain images has stalled, and chooses its stop by
real images. Here both use the synthetic hold-out. The published code also clips the student's gradient, which the paper
does not mention: the preset clips it, the defaults do not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import ReduceLROnPlateau

from synth.basics.settings import MOST_IN_BATCH, MOST_STEPS, ComputeSettings, require, setting
from synth.checkpoint.batch_norm import batch_norm_layers, watch_batch_norm
from synth.methods.losses import balance_loss, disagreement, one_hot_loss
from synth.methods.networks import Generator
from unlearn.methods import losses
from unlearn.methods.attention import attention_loss, layer_pairs, watch_layers
from unlearn.methods.method import Inputs, Part, StuckError, is_finite
from unlearn.methods.mixing import blend_pairs
from unlearn.samples.filters import EntropyBelow, ForgetShareBelow, View
from unlearn.samples.logits import post_filter, without_forget_classes
from unlearn.settings import Idle

SCHEDULE = (
    "learning rates over the rounds: cosine lowers the student's; plateau halves both when the student's loss on the "
    "hold-out of the retain classes has not fallen for three checks"
)


@dataclass(frozen=True, kw_only=True)
class GKTSettings(ComputeSettings):
    """Gated knowledge transfer. The defaults are the paper's. A step of the run is one round."""

    rounds: int = setting(4000, "rounds of generator and student steps", at_least=1, most=MOST_STEPS)
    generator_steps: int = setting(1, "generator steps per round", at_least=1, most=MOST_STEPS, rare=True)
    student_steps: int = setting(10, "student steps per round", at_least=1, most=MOST_STEPS, rare=True)
    batch_size: int = setting(256, "images per step", at_least=2, most=MOST_IN_BATCH)
    z: int = setting(128, "length of the generator's noise", at_least=1, most=65536, rare=True)
    channels: int = setting(
        128,
        "channels of the generator; 16 are enough for a LeNet5, and most of a run's time depends on them",
        at_least=1,
        most=4096,
    )
    gate: float = setting(
        0.01,
        "images pass if every forget class's probability is below this (ε); 1 lets all pass",
        above=0,
        at_most=1,
    )
    entropy: float | None = setting(None, "images pass if the teacher's entropy in nats is below this", above=0)
    attention: float = setting(250.0, "weight of attention transfer (β); 0 leaves it out", at_least=0)
    attention_layers: str = setting(
        "", "layers to compare, such as features.2,features.6 or teacher.a=student.b", rare=True
    )
    temperature: float = setting(
        1.0,
        "softens the teacher's and the student's probabilities; above 1 they show more of the forget class",
        above=0,
    )
    inhibit: bool = setting(False, "change the sign of the forget classes in the generator's loss (ISPF)", rare=True)
    post_filter: bool = setting(False, "push the forget classes down in the teacher's logits (ISPF)")
    post_filter_threshold: float = setting(
        0.01,
        "push them down if their probability is above this",
        above=0,
        below=1,
        rare=True,
    )
    mask: bool = setting(False, "remove the forget classes from the teacher's distribution")
    mixup: bool = setting(False, "blend pairs of generated images before the teacher labels them", rare=True)
    adversarial: float = setting(
        1.0, "weight of the student's disagreement in the generator's loss", at_least=0, rare=True
    )
    bn: float = setting(0.0, "weight of the batch-norm statistics in the generator's loss", at_least=0, rare=True)
    bn_loss: str = setting("published", "how statistics are compared", choices=("normalised", "published"), rare=True)
    one_hot: float = setting(0.0, "weight of the teacher's certainty in the generator's loss", at_least=0, rare=True)
    balance: float = setting(0.0, "weight of equally frequent classes in the generator's loss", at_least=0, rare=True)
    generator_lr: float = setting(1e-3, "Adam's learning rate for the generator", above=0, rare=True)
    generator_beta1: float = setting(0.9, "Adam's first momentum for the generator", at_least=0, below=1, rare=True)
    generator_half_life: int = setting(
        0,
        "rounds from one halving of the generator's learning rate to the next; 0 leaves it to the schedule",
        at_least=0,
        most=MOST_STEPS,
        rare=True,
    )
    clip: float = setting(5.0, "largest gradient norm of the generator; 0 is none", at_least=0, rare=True)
    student_clip: float = setting(0.0, "largest gradient norm of the student; 0 is none", at_least=0, rare=True)
    optimiser: str = setting(
        "adam", "the student's optimiser; sgd has momentum 0.9", choices=("adam", "sgd"), rare=True
    )
    student_lr: float = setting(1e-3, "the student's learning rate", above=0, rare=True)
    schedule: str = setting("constant", SCHEDULE, choices=("constant", "cosine", "plateau"), rare=True)
    batch_norm: str = setting(
        "train",
        "the student's batch norm; initial repeats the published accident",
        choices=("train", "initial"),
        rare=True,
    )
    kl_reduction: str = setting(
        "batchmean",
        "mean divides by the number of classes as well, as published",
        choices=("batchmean", "mean"),
        rare=True,
    )
    fresh_noise: bool = setting(
        True, "new noise for each step; without it all steps of a round use one batch", rare=True
    )
    empty_batches: int = setting(
        100,
        "batches in a row with fewer than two images that pass, before an earlier generator is restored",
        at_least=1,
        most=MOST_STEPS,
        rare=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not (self.mask and self.post_filter), "mask and post-filter exclude each other: choose one")


HELP = (
    "Train a generator and a student by gated transfer. The gate keeps the forget classes out. Shards "
    "only serve to stop the run in time."
)
SETTINGS = GKTSettings
PRESETS: dict[str, GKTSettings] = {
    # The published code, with its accidents (see the top of this file).
    "published": GKTSettings(
        batch_norm="initial",
        kl_reduction="mean",
        fresh_noise=False,
        student_clip=5.0,
        schedule="plateau",
        generator_half_life=150,
    ),
    # Our own, without attention and with a wide gate: the generator learns the teacher's batch-norm statistics, the
    # teacher labels blends, and the forget classes are removed from its labels. LeNet5, MNIST, forget class 0, one
    # seed, measured on 10,000 training images: retain 98.67 % and forget 0 % after 300 rounds, retain 97.4 % after 100.
    "tuned": GKTSettings(
        rounds=300,
        batch_size=128,
        channels=8,
        attention=0.0,
        gate=0.1,
        mask=True,
        mixup=True,
        bn=10.0,
        bn_loss="normalised",
        one_hot=1.0,
        balance=5.0,
        student_lr=2e-3,
        schedule="cosine",
    ),
}
IDLE: Idle = (
    (
        ("attention_layers",),
        lambda s: not s.attention,
        "without attention: set --attention, or leave it out",
    ),
    (
        ("post_filter_threshold",),
        lambda s: not s.post_filter,
        "without --post-filter: add that, or leave it out",
    ),
    (
        ("bn_loss",),
        lambda s: not s.bn,
        "without --bn: add that, or leave it out",
    ),
)


FORGETS_POINTS = True
STARTS_FROM_TEACHER = False
STALLED = 2  # checks without a lower loss before the learning rates halve at the next one, as published
REMEMBERED = 50  # rounds between two copies of the generator, from which it can be restored, as published

Made = TypeVar("Made")


def trains_on_shards(settings: GKTSettings) -> bool:
    return False


def needs_monitor(settings: GKTSettings) -> str | None:
    if settings.schedule != "plateau":
        return None
    return (
        "--schedule plateau needs the synthetic hold-out: name shards with --shards and leave the monitor on, or use "
        "--schedule constant"
    )


def start(inputs: Inputs, settings: GKTSettings) -> GKT:
    if settings.bn and not batch_norm_layers(inputs.teacher):
        inputs.say(f"{inputs.teacher.card.architecture} has no batch-norm layers: --bn {settings.bn:g} has no effect")
    return GKT(inputs, settings)


@dataclass(frozen=True)
class Labelled:
    """The generated images that passed the gate, normalised (N, C, H, W), and what the teacher makes of them."""

    x_norm: Tensor
    targets: Tensor  # (N, K)
    teacher_maps: list[Tensor]  # per compared layer, (N, C', H', W')
    share_passed: Tensor  # of the batch, 0 to 1


class GKT:
    """A step is one round: `generator_steps` steps of the generator, then `student_steps` steps of the student."""

    def __init__(self, inputs: Inputs, settings: GKTSettings) -> None:
        self.settings, self.inputs, self.steps = settings, inputs, settings.rounds
        self.teacher, self.student = inputs.teacher, inputs.new_student()
        self.pairs = layer_pairs(self.teacher, self.student, settings.attention_layers) if settings.attention else ()
        generator = Generator.untrained(settings.z, settings.channels, inputs.card.input_shape, inputs.seed)
        self.generator = generator.to(inputs.device)
        self.first_generator = {name: value.clone() for name, value in self.generator.state_dict().items()}
        self.earlier_generator, self.recent_generator = copy.deepcopy(self.generator), copy.deepcopy(self.generator)
        self.generator_optimiser = torch.optim.Adam(
            self.generator.parameters(), lr=settings.generator_lr, betas=(settings.generator_beta1, 0.999)
        )
        self.optimiser: torch.optim.Optimizer
        if settings.optimiser == "adam":
            self.optimiser = torch.optim.Adam(self.student.parameters(), lr=settings.student_lr)
        else:
            self.optimiser = torch.optim.SGD(self.student.parameters(), lr=settings.student_lr, momentum=0.9)
        self.rng = torch.Generator().manual_seed(inputs.seed)
        # Batches in a row that the gate emptied, and generators restored during them.
        self.empty = torch.zeros(2, dtype=torch.long)
        self.parts: dict[str, Part] = {
            "student": self.student,
            "optimiser": self.optimiser,
            "generator": self.generator,
            "earlier_generator": self.earlier_generator,
            "recent_generator": self.recent_generator,
            "generator_optimiser": self.generator_optimiser,
            "rng": self.rng,
            "empty": self.empty,
        }
        if inputs.points:
            self.parts["points"] = inputs.points
        self.plateaus: list[ReduceLROnPlateau] = []
        if settings.schedule == "plateau":
            scheduled = [self.optimiser] if settings.generator_half_life else [self.optimiser, self.generator_optimiser]
            self.plateaus = [ReduceLROnPlateau(each, factor=0.5, patience=STALLED) for each in scheduled]
            self.parts |= {f"plateau {number}": plateau for number, plateau in enumerate(self.plateaus)}

    def step(self, number: int) -> dict[str, Tensor]:
        settings = self.settings
        self.set_learning_rates(number)
        self.copy_generator(number)
        values: dict[str, Tensor] = {}
        self.student.eval().requires_grad_(False)
        noise = self.noise()
        for index in range(settings.generator_steps):
            if settings.fresh_noise and index:
                noise = self.noise()
            learnt, noise = self.until_passing(self.train_generator, noise)
            values |= learnt
        self.student.train(settings.batch_norm == "train").requires_grad_(True)
        batch, _ = self.until_passing(self.generate, self.noise() if settings.fresh_noise else noise)
        for index in range(settings.student_steps):
            if settings.fresh_noise and index:
                batch, _ = self.until_passing(self.generate, self.noise())
            values |= self.train_student(batch)
        return values

    def rehearse(self, images: int) -> None:
        """Both passes of generator, teacher and student, as in a generator step. No weight and no statistic changes."""
        generator, student = copy.deepcopy(self.generator).train(), copy.deepcopy(self.student).requires_grad_(False)
        noise = torch.zeros(images, self.settings.z, device=self.inputs.device)
        x_norm = generator(noise)
        (self.teacher.logits(x_norm).sum() + student.eval().logits(x_norm).sum()).backward()

    def until_passing(self, attempt: Callable[[Tensor], Made | None], noise: Tensor) -> tuple[Made, Tensor]:
        """The result of `attempt` and the noise (N, z) that gave it. If fewer than two images pass, new noise is drawn.

        Raises StuckError if nothing passes even after earlier generators are restored.
        """
        while (made := attempt(noise)) is None:
            self.count_empty()
            noise = self.noise()
        self.empty.zero_()
        return made, noise

    def set_learning_rates(self, number: int) -> None:
        """Set the rates that depend on the number of the round only."""
        settings = self.settings
        if settings.schedule == "cosine":
            rate = settings.student_lr * 0.5 * (1 + math.cos(math.pi * number / settings.rounds))
            self.optimiser.param_groups[0]["lr"] = rate
        if settings.generator_half_life:
            rate = settings.generator_lr * 0.5 ** (number // settings.generator_half_life)
            self.generator_optimiser.param_groups[0]["lr"] = rate

    def copy_generator(self, number: int) -> None:
        """Keep the generator of 50 to 100 rounds ago. It is restored if none of the present generator's images pass the
        gate.
        """
        if number % REMEMBERED == 0:
            self.earlier_generator.load_state_dict(self.recent_generator.state_dict())
            self.recent_generator.load_state_dict(self.generator.state_dict())

    def heed(self, values: Mapping[str, float]) -> None:
        """Halve the learning rates if the loss on the hold-out has stalled and `schedule` is plateau."""
        for plateau in self.plateaus:
            plateau.step(values["holdout_loss"])

    def train_generator(self, noise: Tensor) -> dict[str, Tensor] | None:
        """One step of the generator, on the images that pass the gate. None, and no step, if fewer than two pass."""
        settings, inputs = self.settings, self.inputs
        with watch_batch_norm(self.teacher.net) as statistics:
            x_norm = self.generator(noise)
            teacher_logits = self.teacher.logits(x_norm)
        passed = self.far_from_points(self.gate(teacher_logits), x_norm)
        if len(passed) < 2:
            return None
        inhibited = inputs.forget if settings.inhibit else ()
        adversarial = self.generators_gain(teacher_logits[passed], self.student.logits(x_norm[passed]), inhibited)
        loss = -settings.adversarial * adversarial
        if settings.bn and batch_norm_layers(self.teacher):
            by_name = {"normalised": statistics.normalised_loss, "published": statistics.published_loss}
            loss = loss + settings.bn * by_name[settings.bn_loss]()
        if settings.one_hot:
            loss = loss + settings.one_hot * one_hot_loss(teacher_logits)
        if settings.balance:
            classes = inputs.retain if settings.inhibit or settings.mask else tuple(range(inputs.card.num_classes))
            loss = loss + settings.balance * balance_loss(teacher_logits, classes)
        self.generator_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if settings.clip:
            clip_grad_norm_(self.generator.parameters(), settings.clip)
        self.generator_optimiser.step()
        return {"generator_loss": loss.detach(), "disagreement": adversarial.detach()}

    def generators_gain(self, teacher_logits: Tensor, student_logits: Tensor, inhibited: tuple[int, ...]) -> Tensor:
        """The student's loss without attention, with the same targets, temperature and reduction; (N, K) twice to a
        scalar.

        A mask or a post-filter removes the forget classes here too. Otherwise the student would always disagree most
        about these classes, since it never learns them, and the generator would make images of little else. With
        inhibition the generator gains nothing from these classes, so the teacher's own answers are used.
        """
        settings, classes = self.settings, teacher_logits.shape[1]
        temperature = settings.temperature
        if settings.post_filter and self.inputs.forget and not inhibited:
            teacher_logits = post_filter(
                teacher_logits, self.inputs.forget, settings.post_filter_threshold, temperature
            )
        teacher_logits, student_logits = teacher_logits / temperature, student_logits / temperature
        if settings.mask and not inhibited:
            kept = list(self.inputs.retain)
            log_p, log_q = teacher_logits[:, kept].log_softmax(1), student_logits.log_softmax(1)[:, kept]
            value = (log_p.exp() * (log_p - log_q)).sum(1).mean()
        else:
            value = disagreement(teacher_logits, student_logits, inhibited)
        value = temperature**2 * value
        return value / classes if settings.kl_reduction == "mean" else value

    @torch.no_grad()
    def generate(self, noise: Tensor) -> Labelled | None:
        """Images for the student, blended in pairs if `mixup` is set. The generator learns nothing.

        None if fewer than two images pass: batch norm needs two.
        """
        x_norm = self.generator(noise)
        if self.settings.mixup:
            share = torch.rand((), generator=self.rng).item()
            other = torch.randperm(len(x_norm), generator=self.rng).to(x_norm.device)
            x_norm = blend_pairs(x_norm, share, other)
        with watch_layers(self.teacher, [t for t, _ in self.pairs]) as maps:
            logits = self.teacher.logits(x_norm)
        passed = self.far_from_points(self.gate(logits), x_norm, count=True)
        if len(passed) < 2:
            return None
        share_passed = torch.tensor(len(passed) / len(x_norm))
        targets = self.targets(logits[passed])
        return Labelled(x_norm[passed], targets, [maps[t][passed] for t, _ in self.pairs], share_passed)

    def train_student(self, batch: Labelled) -> dict[str, Tensor]:
        """One step of the student, on the images that passed."""
        settings = self.settings
        with watch_layers(self.student, [s for _, s in self.pairs]) as student_maps:
            student_logits = self.student.logits(batch.x_norm)
        loss = losses.divergence(batch.targets, student_logits, settings.temperature, settings.kl_reduction)
        values = {"loss": loss.detach(), "passed": batch.share_passed}
        if self.pairs:
            attention = attention_loss(batch.teacher_maps, [student_maps[s] for _, s in self.pairs])
            loss = loss + settings.attention * attention
            values["attention"] = attention.detach()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if settings.student_clip:
            clip_grad_norm_(self.student.parameters(), settings.student_clip)
        self.optimiser.step()
        return values

    def targets(self, logits: Tensor) -> Tensor:
        """The distributions (N, K) that the student learns, from the teacher's logits (N, K)."""
        settings, forget = self.settings, self.inputs.forget
        if settings.mask:
            return without_forget_classes(logits, forget, settings.temperature)
        if settings.post_filter and forget:
            logits = post_filter(logits, forget, settings.post_filter_threshold, settings.temperature)
        return (logits / settings.temperature).softmax(1)

    def gate(self, logits: Tensor) -> Tensor:
        """The rows of the logits (N, K) that pass the gate and the entropy filter. Both work on the CPU: MPS has no
        float64.
        """
        view = View(logits.detach().cpu(), torch.empty(0))
        temperature = 1.0 if self.settings.mask else self.settings.temperature  # masked targets have no forget class
        passed = torch.ones(len(logits), dtype=torch.bool)
        if self.inputs.forget:
            passed &= ForgetShareBelow(self.inputs.forget, self.settings.gate, temperature)(view)
        if self.settings.entropy is not None:
            passed &= EntropyBelow(self.settings.entropy)(view)
        return passed.nonzero()[:, 0].to(logits.device)

    def far_from_points(self, rows: Tensor, x_norm: Tensor, count: bool = False) -> Tensor:
        """Those of the rows whose images, of a batch (N, C, H, W), are near no point to forget.

        Args:
            count: count the images that are dropped.
        """
        if self.inputs.points is None:
            return rows
        x_unit = x_norm.detach() * self.teacher.std + self.teacher.mean
        return rows[~self.inputs.points.near_in_batch(x_unit, count)[rows.cpu()].to(rows.device)]

    def noise(self) -> Tensor:
        size = (self.settings.batch_size, self.settings.z)
        return torch.randn(size, generator=self.rng).to(self.inputs.device)

    def count_empty(self) -> None:
        """After `empty_batches` batches, restore an earlier generator; after as many more, the first one; then
        StuckError.
        """
        patience = self.settings.empty_batches
        self.empty[0] += 1
        if self.empty[0] < patience:
            return
        if not is_finite(self.generator):
            raise StuckError("the generator diverged (its weights are not finite): lower --generator-lr")
        advice = "raise --gate" if self.settings.entropy is None else "raise --gate or --entropy"
        if self.settings.temperature > 1 and not self.settings.mask:
            advice += ", lower --temperature, or use --mask"
        restored = int(self.empty[1])
        if restored == 2:
            raise StuckError(
                f"no image passed the gate for {patience} batches, even after an earlier and the first generator were "
                f"restored: {advice}"
            )
        which = ("earlier", "first")[restored]
        self.inputs.say(
            f"no image passed the gate for {patience} batches: the {which} generator is restored ({advice} if this "
            "happens again)"
        )
        self.generator.load_state_dict((self.earlier_generator.state_dict(), self.first_generator)[restored])
        self.generator_optimiser.state.clear()
        self.empty.copy_(torch.tensor([0, restored + 1]))
