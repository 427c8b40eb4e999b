"""Filtered distillation: a student with random weights learns the teacher's stored logits without the forget classes.

It reads shards only. If the teacher is at hand, it labels fresh views of the images instead, other ones in every epoch.
There is no monitor, since a class that the student never sees does not come back.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synth.basics.errors import UsageError
from synth.checkpoint.augment import shift_and_flip
from synth.checkpoint.batch_norm import estimating_anew
from synth.checkpoint.classifier import Classifier, to_unit
from unlearn.fine_tuning import train_mode
from unlearn.methods import distill_settings, fresh_views, losses, point_answers
from unlearn.methods.distill_settings import GATE, DistillSettings, passes_forget
from unlearn.methods.early_layers import keep_layers, layer_at
from unlearn.methods.feature_noise import FeatureNoise
from unlearn.methods.method import Inputs, Part
from unlearn.methods.mixing import mixup
from unlearn.methods.point_answers import Answered, Answers
from unlearn.methods.shared_layers import SharedLayers
from unlearn.optimise import ONE_CYCLE, descend
from unlearn.samples.batch import Batch
from unlearn.samples.filters import EntropyBelow, Filter, ForgetShareBelow, NoForgetLabel
from unlearn.samples.floor import forget_floor, in_words
from unlearn.samples.logits import post_filter, without_forget_classes
from unlearn.samples.near_points import NearPoints
from unlearn.samples.stream import KEPT
from unlearn.settings import Idle, LoopSettings

SETTLE_BATCHES = 40  # forward passes over which batch-norm statistics are averaged at the end

HELP = (
    "Train a student on filtered shards, from random weights or, with --start-from, from public ones. It reads the "
    "shards only, no real image but points to forget; with --teacher, the teacher labels fresh views of their images."
)
SETTINGS = DistillSettings
# For networks that were fine-tuned from public weights. SGD at the rate of random weights diverges there.
PRESETS: dict[str, DistillSettings] = {
    "fine-tuning": DistillSettings(batch_size=32, lr=7e-4, weight_decay=0.01, optimiser="adamw", flip=True)
}
PRESET_OF_START = "fine-tuning"  # where --start-from is given
IDLE: Idle = (
    (
        ("gate",),
        lambda s: s.post_filter,
        "with --post-filter, which drops nothing: leave one of them out",
    ),
    (
        ("gate",),
        lambda s: s.answer_forget,
        "with --answer-forget, which drops nothing: leave one of them out",
    ),
    (
        ("answer_weight",),
        lambda s: not s.answer_points,
        "without --answer-points: add that, or leave it out",
    ),
)

MAINLY = 0.5  # of a view's probability, from which on it shows the forget classes
BY_LABEL, BY_GATE = "forget label", "forget probability"  # the names of filters
fill_in = distill_settings.fill_in
FILLED_IN = ("gate", "shift", "steps", "flip", "unmixed", "view_crop", "temperature")
NEEDS_TEACHER = False
FORGETS_POINTS = True
MAY_USE_TEACHER = True
STARTS_FROM_TEACHER = False
LOOP = LoopSettings(every=100, monitor=False)


def trains_on_shards(settings: DistillSettings) -> bool:
    return True


def training_filters(forget: tuple[int, ...], settings: DistillSettings) -> dict[str, Filter]:
    """The filters that a sample has to pass before the student sees it. Each has a name, for the counts of what it
    drops.

    The post-filter corrects the teacher's logits instead of dropping samples.
    """
    filters: dict[str, Filter] = {}
    if forget and not passes_forget(settings):
        filters[BY_LABEL] = NoForgetLabel(forget)
        filters[BY_GATE] = ForgetShareBelow(forget, GATE if settings.gate is None else settings.gate)
    if settings.entropy is not None:
        filters["entropy"] = EntropyBelow(settings.entropy)
    return filters


def start(inputs: Inputs, settings: DistillSettings) -> Distillation:
    return Distillation(inputs, settings)


class Distillation:
    """Minimise KL(q || S(x)) for `settings.steps` steps; q is the teacher's distribution without the forget classes.

    Each shard allows its share of the steps, and the last shard allows the last step. So the student trains on a run
    that is still being written as far as its published shards allow. The learning rate follows the steps, so the work
    is the same as on a finished run. On a finished run the student is a function of the seed and of the window; on a
    run that is still being written it also depends on when the shards appear.

    Args:
        settings: filled in.
    """

    def __init__(self, inputs: Inputs, settings: DistillSettings) -> None:
        assert inputs.samples is not None
        self.samples, self.forget, self.settings = inputs.samples, inputs.forget, settings
        assert settings.steps is not None, "fill_in decides it"
        self.steps, self.say, self.device = settings.steps, inputs.say, inputs.device
        self.teacher, self.points = inputs.loaded_teacher, inputs.points
        refuse_idle_without_teacher(settings, self.teacher)
        if settings.answer_forget and not self.forget:
            raise UsageError("--answer-forget has no effect without --forget: name the classes, or leave it out")
        self.student = inputs.new_student()
        self.kept = kept_layers(self.student, inputs, settings)
        self.shared = shared_layers(self.student, settings)
        self.noise = feature_noise(self.student, settings)
        self.freeze_batch_norm = frozen_statistics(inputs, settings)
        self.set_mode()
        one_cycle = ONE_CYCLE[settings.optimiser]
        self.optimiser, self.schedule = one_cycle(self.student, settings.lr, settings.weight_decay, self.steps)
        self.rng = torch.Generator().manual_seed(inputs.seed)
        self.answers = answers_to_points(inputs, settings)
        self.warned = False
        self.parts: dict[str, Part] = {
            "student": self.student,
            "optimiser": self.optimiser,
            "schedule": self.schedule,
            "rng": self.rng,
            "samples": self.samples,
            **({"answers": self.answers} if self.answers is not None else {}),
            **({"points": self.points} if self.points is not None and self.teacher is not None else {}),
        }

    def set_mode(self) -> None:
        """Train mode, but the kept layers compute as in the teacher."""
        train_mode(self.student, self.freeze_batch_norm)
        for layer in self.kept:
            layer.training = False

    def step(self, number: int) -> dict[str, Tensor]:
        self.samples.provide_for(number + 1, self.steps)
        if self.answers is not None:
            self.renew_answers(self.answers, number)
        self.set_mode()
        loss = self.loss_of_next()
        descend(loss, self.optimiser, self.schedule)
        if self.answers is not None and number + 1 == self.steps:
            self.say(self.answers.words)
        if self.settings.settle and number + 1 == self.steps:
            self.settle()
        rate = float(self.schedule.get_last_lr()[0])
        return {
            "loss": loss.detach(),
            "samples": torch.tensor(float(self.samples.counts[KEPT])),
            "lr": torch.tensor(rate, dtype=torch.float64),
        }

    def loss_of_next(self) -> Tensor:
        """The loss on the next batch of which at least two views pass. Raises StuckError if many in a row have none."""
        for tries in range(1, fresh_views.EMPTY_BATCHES + 1):
            batch = self.samples.next(self.settings.batch_size).to(self.device)
            if self.samples.whole and not self.warned:
                self.warn_of_losses()
            try:
                return distillation_loss(
                    self.student,
                    batch,
                    self.forget,
                    self.settings,
                    self.rng,
                    self.teacher,
                    self.points,
                    self.noise,
                    self.shared,
                    self.answers.draw(self.points_in_batch, self.rng) if self.answers is not None else None,
                )
            except fresh_views.NoViewsError:
                if tries == fresh_views.EMPTY_BATCHES:
                    raise
        raise AssertionError("the last try returns or raises")

    @property
    def points_in_batch(self) -> int:
        return max(1, round(point_answers.SHARE * self.settings.batch_size))

    def renew_answers(self, answers: Answers, number: int) -> None:
        """Before some of the steps: hear the student as it is now, and compute the points' targets anew."""
        listens, renews = (when(number, self.steps) for when in (point_answers.listened_at, point_answers.renewed_at))
        if listens or renews:
            self.student.eval()
        if listens:
            views = point_answers.heard_views(answers.images, bool(self.settings.flip), number)
            answers.listen(self.student, views)
        if renews:
            batches = -(-point_answers.IMAGES // self.settings.batch_size)
            images = torch.cat([self.samples.next(self.settings.batch_size).own for _ in range(batches)])
            answers.renew(self.student, images)

    @torch.no_grad()
    def settle(self) -> None:
        """Estimate the student's batch-norm statistics on images as they are, which is how it will see images."""
        with estimating_anew(self.student):
            for _ in range(SETTLE_BATCHES):
                self.student(to_unit(self.samples.next(self.settings.batch_size).to(self.device).own))

    def warn_of_losses(self) -> None:
        """Say so if the gate drops most of the samples read so far that hold no forget class."""
        self.warned, counts = True, self.samples.counts
        dropped = counts.get(BY_GATE, 0)
        retain = counts[KEPT] + dropped + counts.get("entropy", 0)
        if dropped > retain / 2:
            floor = in_words(forget_floor(self.samples.runs, self.forget))
            self.say(
                f"warning: --gate {self.settings.gate:g} drops {dropped:,} of {retain:,} samples of the classes to "
                f"retain: {floor}; a larger --gate drops fewer"
            )


def kept_layers(student: Classifier, inputs: Inputs, settings: DistillSettings) -> list[nn.Module]:
    """The teacher's layers that the student keeps. Raises UsageError if there is no teacher to take them from."""
    if not settings.keep_layers:
        return []
    if inputs.loaded_teacher is None:
        raise UsageError("--keep-layers copies layers of the teacher: name its checkpoint with --teacher")
    name = layer_at(student, settings.keep_layers)
    if name != settings.keep_layers:
        inputs.say(f"--keep-layers {settings.keep_layers} keeps the teacher's layers up to {name}")
    return keep_layers(student, inputs.loaded_teacher, name)


def shared_layers(student: Classifier, settings: DistillSettings) -> SharedLayers | None:
    """The kept layers, which are computed once for teacher and student; None where the two see other images or compute
    the layers in another way.
    """
    if not settings.keep_layers or settings.mixup or settings.batch_statistics:
        return None
    return SharedLayers(student, layer_at(student, settings.keep_layers))


def feature_noise(student: Classifier, settings: DistillSettings) -> FeatureNoise | None:
    """The noise where the kept layers end; None if it is off. Raises UsageError if none are kept."""
    if not settings.feature_noise:
        return None
    if not settings.keep_layers:
        raise UsageError("--feature-noise has no effect without --keep-layers, where it is added: name layers to keep")
    return FeatureNoise(student, layer_at(student, settings.keep_layers), settings.feature_noise)


def answers_to_points(inputs: Inputs, settings: DistillSettings) -> Answers | None:
    """The answers that the points are to get; None if they get none. Raises UsageError without points, or labels."""
    if not settings.answer_points:
        return None
    if inputs.asked_points is None:
        raise UsageError("--answer-points has no effect without --forget-points: name the points, or leave it out")
    if inputs.card.target is not None:
        raise UsageError("--answer-points is for classes, and this teacher predicts a number: leave it out")
    flip = bool(settings.flip)
    answers = Answers(inputs.asked_points, inputs.loaded_teacher, inputs.device, flip, inputs.forget)
    if not len(answers):
        raise UsageError(
            "--answer-points needs labels, and no point has one: put the points into folders of their classes, or name "
            "the teacher with --teacher"
        )
    return answers


def frozen_statistics(inputs: Inputs, settings: DistillSettings) -> bool:
    """Whether batch norm keeps its statistics. Raises UsageError if it has none to keep."""
    if settings.freeze_batch_norm and inputs.public is None:
        raise UsageError("--freeze-batch-norm has no effect without --start-from: random weights have no statistics")
    return inputs.public is not None if settings.freeze_batch_norm is None else settings.freeze_batch_norm


def refuse_idle_without_teacher(settings: DistillSettings, teacher: Classifier | None) -> None:
    """Raise UsageError for a setting of fresh views if no teacher makes them."""
    for name in ("unmixed", "view_crop", "batch_statistics", "answer_forget"):
        value = getattr(settings, name)
        if teacher is None and value is not None and value is not False:
            raise UsageError(f"--{name.replace('_', '-')} has no effect without --teacher: add that, or leave it out")


def distillation_loss(
    student: Classifier,
    batch: Batch,
    forget: tuple[int, ...],
    settings: DistillSettings,
    rng: torch.Generator,
    teacher: Classifier | None = None,
    points: NearPoints | None = None,
    noise: FeatureNoise | None = None,
    shared: SharedLayers | None = None,
    answered: Answered | None = None,
) -> Tensor:
    """τ² mean_n KL(q_n || softmax(S(x_n) / τ)) on one augmented batch, a scalar in nats.

    Without a teacher the views are the stored ones, and q comes from the stored logits. A teacher labels fresh views,
    and those that do not pass the filters, or are near one of the points, are left out. Teacher and student see the
    same noise in their features. The layers that they share are computed once.

    Args:
        answered: points that the student sees beside the views, to learn how likely their labels should be.
    """
    assert settings.shift is not None, "fill_in decides it"
    with ExitStack() as heard, ExitStack() as seen:
        if teacher is None:
            x_unit = shift_and_flip(to_unit(batch.views), settings.shift, bool(settings.flip), rng)
            logits = batch.logits
        else:
            assert settings.unmixed is not None, "fill_in decides it"
            assert settings.view_crop is not None, "fill_in decides it"
            changes = (settings.unmixed, settings.view_crop, settings.shift, bool(settings.flip))
            views = fresh_views.fresh_views(batch.own, *changes, rng)
            filters = [accept for name, accept in training_filters(forget, settings).items() if name != BY_LABEL]
            x_unit = to_unit(views)
            alone = nullcontext() if points is None else points.lock
            heard.enter_context(alone)
            if noise:
                gains = noise.draw(len(views), rng)
                heard.enter_context(noise.on(teacher, gains))
            if shared:
                heard.enter_context(shared.noted(teacher))
            noisy = noise is not None
            logits, kept = fresh_views.answered(
                x_unit, teacher, settings.batch_statistics, filters, points, heard, noisy
            )
            x_unit, logits = x_unit[kept], logits[kept]
            if noise:
                seen.enter_context(noise.on(student, gains[kept.cpu()]))
            if shared:
                if answered is not None:
                    with alone:
                        shared.note_more(teacher, answered.images)
                    kept = F.pad(kept, (0, len(answered.images)), value=True)
                seen.enter_context(shared.given(student, kept))
        targets = targets_for(logits, forget, settings)
        x_unit, targets = mixup(x_unit, targets, settings.mixup, rng)
        if answered is None:
            return losses.divergence(targets, student(x_unit), settings.tau)
        logits = student(torch.cat([x_unit, answered.images]))
        of_views = losses.divergence(targets, logits[: len(x_unit)], settings.tau)
        of_points = point_answers.divergence(answered, logits[len(x_unit) :])
        of_points = settings.answer_weight * of_points
        return (len(x_unit) * of_views + len(answered.images) * of_points) / len(logits)


def targets_for(logits: Tensor, forget: tuple[int, ...], settings: DistillSettings) -> Tensor:
    """The distributions (N, K) that the student learns, from the teacher's logits (N, K)."""
    if settings.post_filter and forget:
        return (post_filter(logits, forget, temperature=settings.tau) / settings.tau).softmax(1)
    targets = without_forget_classes(logits, forget, settings.tau)
    if settings.answer_forget:
        of_forget = logits.softmax(1)[:, list(forget)].sum(1) >= MAINLY
        targets = torch.where(of_forget[:, None], without_forget_classes(logits, forget, 1.0), targets)
    return losses.one_hot(targets.argmax(1), targets.shape[1]) if settings.hard_labels else targets
