"""The settings of DeepInversion, and its presets: the paper's, and those for each form of images (presets.py)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from synth.basics.settings import MOST_IN_BATCH, MOST_STEPS, ComputeSettings, require, setting


@dataclass(frozen=True, kw_only=True)
class DeepInversionSettings(ComputeSettings):
    """DeepInversion (Yin et al. 2020). Our own defaults, chosen on training images only; the paper's are a preset.

    Four defaults differ from the paper; each gave better students. The statistics loss is measured in each channel's
    own standard deviation and averaged (`bn_loss`). Pixels have statistics too (`pixel`). The gradient is smoothed
    before each step, which suppresses textures that only the network sees (`smoothing`). And there are far fewer steps.
    """

    steps: int = setting(100, "Adam steps per image", at_least=1, most=MOST_STEPS)
    batch_size: int = setting(
        500,
        "images optimised together; classes are mixed, so that the statistics resemble training",
        at_least=2,
        most=MOST_IN_BATCH,
    )
    lr: float = setting(0.3, "Adam's peak learning rate, in normalised pixels", above=0)
    warmup: int = setting(0, "steps of linear warm-up before the cosine decay", at_least=0, most=MOST_STEPS, rare=True)
    start: str = setting(
        "dark",
        "first images: dark with some noise, noise as smooth as strokes, or plain noise",
        choices=("dark", "smooth", "noise"),
        rare=True,
    )
    natural: bool | None = setting(
        None,
        "start from noise with the spectrum and the colours of photographs; by default only for teachers of colour "
        "images without batch norm; --start has no effect then",
        rare=True,
    )
    ce: float = setting(1.0, "weight of the teacher's cross-entropy towards the wanted class", at_least=0, rare=True)
    bn: float = setting(80.0, "weight of the batch-norm statistics loss; 0 leaves it out", at_least=0, rare=True)
    bn_loss: str = setting("normalised", "how statistics are compared", choices=("normalised", "published"), rare=True)
    first_bn: float = setting(1.0, "factor on the first batch-norm layer's statistics", at_least=0, rare=True)
    patches: float = setting(
        0.0,
        "weight of the patch-similarity entropy, for teachers with LayerNorm or GroupNorm (PSAQ-ViT; there 1)",
        at_least=0,
        rare=True,
    )
    drop_patches: float = setting(
        0.0,
        "share of a transformer's patches that are left out as the steps go on, the least important first (SMI)",
        at_least=0,
        below=1,
        rare=True,
    )
    pixel: float = setting(
        20.0,
        "weight of the pixels' mean and variance, known from the checkpoint's normalisation",
        at_least=0,
        rare=True,
    )
    smoothing: int = setting(
        2,
        "times that the gradient is blurred by a 3x3 binomial filter before a step",
        at_least=0,
        at_most=32,
        rare=True,
    )
    tv_l1: float = setting(0.0, "weight of the total variation's absolute norm, per pixel", at_least=0, rare=True)
    tv_l2: float = setting(0.0, "weight of the total variation's Euclidean norm, over the batch", at_least=0, rare=True)
    tv_squared: float = setting(1.0, "weight of the total variation's squares, per pixel", at_least=0, rare=True)
    l2: float = setting(0.0, "weight of the image's Euclidean norm", at_least=0, rare=True)
    jitter: int = setting(0, "largest random shift in pixels, drawn for each step", at_least=0, at_most=32)
    crop: float = setting(
        1.0,
        "smallest share of the image's area that the teacher sees in a step; falls from 1 to this along a cosine",
        above=0,
        at_most=1,
    )
    roll: float = setting(
        0.0, "largest random shift as a share of the side, drawn for each step", at_least=0, at_most=0.5
    )
    flip: bool = setting(False, "mirror images at random; right for natural images, wrong for digits")
    each: bool = setting(
        False, "draw crop, roll and mirror image for each image of the batch, not once for all", rare=True
    )
    coarse_steps: float = setting(
        0,
        "the first steps, which run at half resolution (large images: at a quarter, then at half); a number of steps, "
        "or below 1 a share of them",
        at_least=0,
        most=MOST_STEPS,
        rare=True,
    )
    plateau: float = setting(
        0.0,
        "stop a batch if its loss falls by less than this share over ten steps; 0 takes every step",
        at_least=0,
        below=1,
        rare=True,
    )
    compete: float = setting(
        10.0,
        "weight of the disagreement with --student, if one is given (the paper's alpha_c); 0 leaves it out",
        at_least=0,
        rare=True,
    )
    warm_start: bool = setting(
        False, "start from the images of a generator, which is trained first or given by --generator"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.coarse_steps <= self.steps,
            f"coarse steps must be at most steps ({self.steps}), not {self.coarse_steps}",
        )


# The published schedule: 2,000 steps, batches of 1,000, and a cosine after 100 steps of warm-up.
PUBLISHED = DeepInversionSettings(
    steps=2000,
    batch_size=1000,
    lr=0.2,
    warmup=100,
    start="noise",
    bn=0.05,
    bn_loss="published",
    first_bn=10.0,
    pixel=0.0,
    smoothing=0,
    tv_squared=0.0,
    tv_l2=1e-4,
    l2=1e-5,
    jitter=2,
    precision="float32",
    layout="planes",
)
# A tenth of the default's steps, from smooth noise, so that no step is spent on removing the noise of single pixels.
# Judged on training images, the students are as good as with the published 2,000 steps (docs/results/bench-synth.md,
# Choosing settings).
LEAN = DeepInversionSettings(steps=10, lr=1.0, start="smooth")
# Few steps need a learning rate five times as high. Retain accuracy on training images (MNIST, LeNet5, 300 images per
# class, students of 700 steps): 5 steps: 99.2 % at lr 1.5, 98.8 % at lr 1. 10 steps: 99.4 % at 0.8, 98.1 % at 0.3. 100
# steps: 99.6 % at 0.3.
QUICK = DeepInversionSettings(steps=5, lr=1.5)
# A tenth of the default's steps, from the images of a generator.
WARM = DeepInversionSettings(steps=10, lr=0.2, warm_start=True)
PRESETS = {"published": PUBLISHED, "lean": LEAN, "quick": QUICK, "warm": WARM}

# For photographs. The crops' area falls from 1 to 0.08 along a cosine (CDA, Yin and Shen 2023), with shifts and mirror
# images (SRe2L, Yin et al. 2023), and the first steps change half the resolution (Yin et al. 2020). There are no pixel
# statistics, because the normalisation of such networks is often a plain 0.5.
PHOTO = DeepInversionSettings(
    steps=200,
    batch_size=50,
    lr=0.25,
    start="noise",
    bn=10.0,
    pixel=0.0,
    smoothing=1,
    tv_squared=0.0,
    crop=0.08,
    roll=0.07,
    flip=True,
    each=True,
    coarse_steps=0.6,
)
# The settings of CDA for ImageNet: 4,000 steps, batches of 100, shifts of 32 pixels of 224.
PHOTO_PUBLISHED = replace(
    PUBLISHED,
    steps=4000,
    batch_size=100,
    lr=0.25,
    warmup=0,
    bn=0.01,
    tv_l2=0.0,
    l2=0.0,
    jitter=0,
    crop=0.08,
    roll=0.14,
    flip=True,
)
PHOTO_PRESETS = {
    "tuned": PHOTO,
    "lean": replace(PHOTO, steps=60),
    "quick": replace(PHOTO, steps=40, lr=0.3),
    "published": PHOTO_PUBLISHED,
}
# For photographs of few pixels, such as CIFAR's: the statistics weigh as on small images, and the teacher sees random
# crops, shifts and mirror images. Students learn as much from 30 steps as from 100, or more
# (docs/results/bench-thumbnails.md). `warm` and `published` are those for small images.
THUMBNAIL = DeepInversionSettings(steps=30, lr=0.5, start="smooth", crop=0.5, roll=0.07, flip=True, each=True)
THUMBNAIL_PRESETS = {
    "tuned": THUMBNAIL,
    "lean": replace(THUMBNAIL, steps=10, lr=1.0),
    "quick": replace(THUMBNAIL, steps=5, lr=1.5, start="dark"),
    "warm": WARM,
    "published": PUBLISHED,
}
