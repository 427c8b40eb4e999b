"""The settings of filtered distillation, and those of their defaults that depend on the shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from synth.basics.progress import Say
from synth.basics.settings import MOST_IN_BATCH, MOST_STEPS, ComputeSettings, require, setting
from synth.checkpoint.target import Bins
from synth.shards.index import RunCard
from unlearn.samples.floor import in_words

STEPS = 4000  # for digits
PASSES = 200  # over the images, for photographs
MOST_PASSES_STEPS = 20_000
FINE_TUNING_PASSES, FINE_TUNING_STEPS = 40, (500, 5000)  # trained weights need fewer; the least and the most steps
KEPT_TEMPERATURE = 4.0  # wins 1 to 2 points, and the audit says "like retrained" (docs/results/finetuned.md)
UNMIXED = 0.0  # of training images, half of them unmixed loses 3 points (docs/results/bench-distill.md)
KEPT_CROP = 0.5  # wins 0.8 points of training images that the student did not see, with both networks measured
GATE = 0.01  # GKT's
# Photographs are seldom so clear: the paper's gate drops two thirds of the views of the other classes, and costs six
# points of retain accuracy. With this one the audit still says "like retrained" (docs/results/bench-distill.md).
PHOTO_GATE = 0.1
# The floor above which a teacher is soft. LeNet5 on digits has 0.0001 after 3 epochs, and 0.004 if smoothed by 0.1.
SOFT = 0.002


@dataclass(frozen=True, kw_only=True)
class DistillSettings(ComputeSettings):
    """Filtered distillation.

    Temperature, shift and steps were chosen on training images of MNIST and CIFAR-10, never on test images. A
    temperature of 4 gives some tenths of a point more retain accuracy, but its soft targets show what the teacher knows
    of the forget class (docs/traces.md). With kept layers it gives one to two points, and the audits of such students
    on CIFAR-10 still say "like retrained". Hard labels show least of it. Mirrored images with the answers on the images
    as they were, and batch-norm statistics of unmixed images, made students worse (docs/results/bench-distill.md).
    """

    gate: float | None = setting(
        None,
        "drop samples whose forget-class probability is this or more (ε of GKT); 1 drops none; by default 0.01, on "
        "colour images 0.1, and more for a teacher that was trained on soft labels; for a range twice its share of the "
        "target",
        above=0,
        at_most=1,
    )
    entropy: float | None = setting(None, "drop samples whose entropy in nats is this or more", above=0)
    post_filter: bool = setting(False, "drop nothing, but push the forget classes down in the teacher's logits (ISPF)")
    answer_forget: bool = setting(
        False,
        "with --teacher, fresh views of the forget classes take part, too, with the teacher's answers without these "
        "classes, at temperature 1; the gate drops nothing then",
    )
    steps: int | None = setting(
        None,
        f"training steps; by default {STEPS}, and on colour images {PASSES} passes over the images, at least {STEPS} "
        f"and at most {MOST_PASSES_STEPS} steps; with adamw, as with --start-from, {FINE_TUNING_PASSES} passes, "
        f"{FINE_TUNING_STEPS[0]} to {FINE_TUNING_STEPS[1]} steps",
        at_least=1,
        most=MOST_STEPS,
    )
    batch_size: int = setting(128, "images per step", at_least=2, most=MOST_IN_BATCH)
    lr: float = setting(0.1, "peak learning rate of SGD with momentum", above=0)
    weight_decay: float = setting(5e-4, "L2 penalty on the weights", at_least=0, rare=True)
    temperature: float | None = setting(
        None,
        "softens the teacher's and the student's probabilities; above 1 they show more of the forget class; by default "
        f"1, and on colour images with --keep-layers {KEPT_TEMPERATURE:g}",
        above=0,
    )
    hard_labels: bool = setting(False, "learn only the teacher's likeliest retain class, not its probabilities")
    mixup: float = setting(
        0.0, "blend pairs of images and of their targets by Beta(m, m); 0 is off", at_least=0, rare=True
    )
    shift: int | None = setting(
        None,
        "largest random shift in pixels; by default 0 if the shards hold views, which are shifted already, else 2",
        at_least=0,
        at_most=64,
    )
    flip: bool | None = setting(
        None,
        "mirror images at random; wrong for digits and letters; by default only with --teacher, on colour images",
    )
    settle: bool = setting(
        False, "at the end, estimate the batch-norm statistics anew on images that are not mixed", rare=True
    )
    unmixed: float | None = setting(
        None,
        f"with --teacher, share of the fresh views that mix no other image in; by default {UNMIXED}",
        at_least=0,
        at_most=1,
        rare=True,
    )
    view_crop: float | None = setting(
        None,
        "with --teacher, smallest share of the area that a fresh view shows; 1 crops nothing; by default "
        f"{KEPT_CROP:g} on colour images with --keep-layers, else 1",
        above=0,
        at_most=1,
    )
    batch_statistics: bool = setting(
        False, "with --teacher, it labels by the batch-norm statistics of the batch, not by its own", rare=True
    )
    keep_layers: str = setting(
        "",
        "keep the teacher's layers up to this one, or a share of them, such as 60%, and train only those after it "
        "(EU-k); needs --teacher",
    )
    feature_noise: float = setting(
        0.0,
        "with --keep-layers, spread of random gains on the channels of the last kept layer, the same for teacher and "
        "student; 0 is off",
        at_least=0,
        at_most=2,
    )
    answer_points: bool = setting(
        False,
        "with --forget-points, the student also learns how unlikely the label is of those of the points that it does "
        "not call by it, and of colour images, with --teacher, what else they could be; so their images take part in "
        "its training",
    )
    answer_weight: float = setting(
        1.0,
        "with --answer-points, how much a point counts beside a view; raise it where few steps leave memorised labels "
        "too likely",
        above=0,
        at_most=1000,
        rare=True,
    )
    optimiser: str = setting("sgd", "how the weights are moved", choices=("sgd", "adamw"), rare=True)
    freeze_batch_norm: bool | None = setting(
        None,
        "keep the statistics of batch norm, which public weights bring along; by default with --start-from",
        rare=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.hard_labels or self.tau == 1, "hard labels have no temperature: leave one of them out")
        require(
            not (self.feature_noise and self.mixup), "feature noise and mixup exclude each other: leave one of them out"
        )
        require(
            not (self.feature_noise and self.answer_points),
            "feature noise and answered points exclude each other: leave one of them out",
        )
        require(
            not (self.hard_labels and self.post_filter), "hard labels and post-filter exclude each other: choose one"
        )
        require(
            not (self.answer_forget and self.post_filter),
            "answered forget classes and post-filter exclude each other: choose one",
        )

    @property
    def tau(self) -> float:
        """The temperature; 1 if it is not decided yet."""
        return 1.0 if self.temperature is None else self.temperature


def fill_in(
    settings: DistillSettings,
    run: RunCard,
    floor: Callable[[], float] = lambda: 0.0,
    say: Say = lambda line: None,
    images: int | None = None,
    teacher: bool = False,
    forget: tuple[int, ...] = (),
) -> DistillSettings:
    """The settings with everything decided that depends on the shards.

    Views are shifted already. A teacher that was trained on soft labels gives the forget classes some probability on
    every image; a gate below it would drop them all. Colour images are taken for photographs: these have a wider
    gate, more steps, with kept layers a higher temperature and cropped fresh views, and fresh views of them are
    mirrored, with the teacher's answers on the mirror images.

    Args:
        floor: measures the probability of the forget classes that nine of ten images of the others reach. It is not
            called if the gate is given.
        say: gets a line if the gate is not the usual one.
        images: of all runs; those of this run if None.
        teacher: whether it is at hand.
        forget: the forget classes, or the `Bins` of a range.
    """
    photographs = run.image_shape[0] == 3
    gate, shift, steps = settings.gate, settings.shift, settings.steps
    if gate is None and isinstance(forget, Bins) and forget and not passes_forget(settings):
        gate = gate_of_range(len(forget) / run.num_classes, say)
    if gate is None:
        usual = PHOTO_GATE if photographs else GATE
        gate = usual if passes_forget(settings) else gate_above(floor(), run.num_classes, say, usual)
    if shift is None:
        shift = 0 if run.plan.views else 2
    if steps is None:
        steps = steps_for(images or run.plan.images, photographs, settings)
    mirrored = photographs and teacher and run.target is None  # a regressor's target may depend on the side
    flip = mirrored if settings.flip is None else settings.flip
    unmixed = UNMIXED if teacher and settings.unmixed is None else settings.unmixed
    kept = photographs and settings.keep_layers and run.target is None
    usual_crop = KEPT_CROP if kept else 1.0
    view_crop = usual_crop if teacher and settings.view_crop is None else settings.view_crop
    usual_tau = KEPT_TEMPERATURE if kept and not settings.hard_labels else 1.0
    tau = usual_tau if settings.temperature is None else settings.temperature
    return dataclasses.replace(
        settings,
        gate=gate,
        shift=shift,
        steps=steps,
        flip=flip,
        unmixed=unmixed,
        view_crop=view_crop,
        temperature=tau,
    )


def passes_forget(settings: DistillSettings) -> bool:
    """Whether samples of the forget classes reach the student, with answers that leave these classes out."""
    return settings.post_filter or settings.answer_forget


def steps_for(images: int, photographs: bool, settings: DistillSettings) -> int:
    """The default number of steps for this many images. A network that starts from trained weights needs fewer."""
    if settings.optimiser == "adamw":
        passes, (least, most) = FINE_TUNING_PASSES, FINE_TUNING_STEPS
    elif photographs:
        passes, (least, most) = PASSES, (STEPS, MOST_PASSES_STEPS)
    else:
        return STEPS
    return max(least, min(most, passes * images // settings.batch_size))


def gate_of_range(share: float, say: Say) -> float:
    """The default gate of a range that is this share of the target's: twice the share, at most one half.

    A view that mixes two images has a broad answer, with about the share in any range. The gate of classes, 0.01, drops
    nearly all views then: on rotated digits (36 bins, forget 60 to 90 degrees, 720 images, 600 steps, one seed) the
    student's error on training images of the retain range was 22.9 degrees, and 3.2 with a gate of 0.3. The range's
    mass is removed from the targets either way.
    """
    gate = min(0.5, float(f"{2 * share:.2g}"))
    say(f"--gate is {gate:g}, twice the range's share of the target; the range's mass is removed from every answer")
    return gate


def gate_above(floor: float, num_classes: int, say: Say, usual: float = GATE) -> float:
    """The default gate: the usual one, and for a soft teacher ten times the floor, at most one half.

    Soft labels spread little over K classes: label smoothing by ε gives each ε / K. A floor above 1 / 2K comes from
    images that the teacher does not know, and a wider gate would pass exactly these.
    """
    if floor <= SOFT:
        return usual
    if floor > 1 / (2 * num_classes):
        say(f"warning: the images are unclear: {in_words(floor)}; make better ones, such as with more --steps")
        return usual
    gate = max(usual, min(0.5, float(f"{10 * floor:.2g}")))
    if gate > usual:
        say(f"--gate is {gate:g} instead of {usual:g}, because the teacher is soft: {in_words(floor)}")
    return gate
