"""The rows of the table, each a command with its published figure, and the sizes that a table can have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes that make a table fit a machine. None of them changes a method."""

    seeds: int
    width: float  # factor on AllCNN's channels; LeNet5 always has its own width
    epochs: int  # of teachers and references
    channels: int  # of GKT's generator; the paper has 128
    batch_size: int  # generated images per step; the paper has 256
    published_rounds: int  # of GKT as published; the paper has 4,000
    rounds: int  # of the other GKT rows; ISPF gets as many student steps
    distill_steps: int = 4000  # of distill's student
    per_class: tuple[int, ...]  # images for distill; the other methods' monitors hold out the first size
    synthesis: str = "tuned"  # preset of `synth generate` for these images
    all_rows: bool = True  # also variants of the methods, and the tuned preset without each of its parts


MEDIUM = Size(
    seeds=1, width=0.125, epochs=1, channels=8, batch_size=64, published_rounds=1600, rounds=400, per_class=(100,)
)
SIZES = {
    "small": replace(MEDIUM, published_rounds=500, rounds=200, all_rows=False),
    "medium": MEDIUM,
    "full": Size(
        seeds=3,
        width=1.0,
        epochs=5,
        channels=128,
        batch_size=256,
        published_rounds=4000,
        rounds=2000,
        per_class=(100, 1000, 6000),
    ),
}


@dataclass(frozen=True)
class Row:
    """One line of the table. `student_steps` is the number of student steps in one step of the loop."""

    name: str
    title: str
    command: tuple[object, ...]
    published: str = "-"
    student_steps: int = 1
    kind: Literal["method", "variant", "ablation"] = "method"


def method_rows(size: Size, flip: Sequence[object] = ()) -> list[Row]:
    """All rows but original, retrained and distill, which do not load the teacher. `flip` is the data's option."""
    rounds = size.rounds
    shared = ("--channels", size.channels, "--batch-size", size.batch_size)
    published = ("gkt", "--preset", "published", *shared, "--rounds", size.published_rounds, "--every", 50)
    gkt, tuned = ("gkt", *shared, *course(rounds)), ("gkt", "--preset", "tuned", *shared, *course(rounds))
    shorter = ("gkt", "--preset", "tuned", *shared, *course(max(10, rounds // 2)))
    ispf = ("ispf", *shared, *course(max(4, rounds // 5)))  # a round has 50 student steps, one of GKT has 10
    return [
        Row("gkt-published", "GKT as published", published, "97.12", 10),
        Row("gkt-published-beta0", "GKT as published, β = 0", (*published, "--attention", 0), "< 50", 10),
        Row(
            "gkt-published-mask",
            "GKT as published, targets without the class",
            (*published, "--mask"),
            "97.12",
            10,
            kind="variant",
        ),
        Row("gkt-published-entropy", "GKT as published, entropy < 0.6", (*published, "--entropy", 0.6), "98.3", 10),
        Row("gkt", "GKT by the paper's equations", gkt, "94.77 (log)", 10, kind="variant"),
        Row("gkt-beta0", "GKT by the equations, β = 0", (*gkt, "--attention", 0), "< 50", 10, kind="variant"),
        Row("ispf", "ISPF", ispf, "-", 50),
        Row("gkt-tuned", "GKT, tuned preset (β = 0)", tuned, "< 50", 10),
        Row("adaptive", "Adaptive DeepInversion, 100 per class", ("adaptive", "--every", 200, *flip)),
        Row(
            "adaptive-alone",
            "the same, not steered",
            ("adaptive", "--every", 200, "--compete", 0, *flip),
            kind="variant",
        ),
        Row("emmn", "EMMN", ("emmn", "--every", 5), "10.57"),
        *edit_rows(),
        *ablation_rows(shorter),
    ]


def course(rounds: int) -> tuple[object, ...]:
    return ("--rounds", rounds, "--every", max(1, rounds // 20))


def edit_rows() -> list[Row]:
    titles = {
        "masked-logit": "masked logit",
        "last-layer": "last layer only",
        "finetune": "fine-tuned on synthetic retain data",
        "random-relabel": "random labels on synthetic forget data",
    }
    return [Row(kind, title, ("edit", "--kind", kind, "--every", 100)) for kind, title in titles.items()]


def ablation_rows(tuned: tuple[object, ...]) -> list[Row]:
    """The tuned preset without each of its parts, in half as many rounds, to see which part replaces attention."""
    changes: dict[str, tuple[str, tuple[object, ...]]] = {
        "all": ("the preset", ()),
        "no-bn": ("without batch-norm statistics", ("--bn", 0)),
        "no-mixup": ("without blends", ("--no-mixup",)),
        "no-prior": ("without certainty and balance", ("--one-hot", 0, "--balance", 0)),
        "gate": ("a gate instead of masked labels", ("--no-mask", "--gate", 0.01)),
        "post-filter": ("the post-filter instead of masked labels", ("--no-mask", "--post-filter", "--gate", 1)),
        "constant": ("a constant learning rate", ("--schedule", "constant")),
        "none": (
            "none of these",
            ("--bn", 0, "--no-mixup", "--one-hot", 0, "--balance", 0, "--no-mask", "--gate", 0.01),
        ),
    }
    return [
        Row(f"tuned-{name}", title, (*tuned, *options), "< 50", 10, kind="ablation")
        for name, (title, options) in changes.items()
    ]
