"""A classifier's card: what a checkpoint states about its network. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from synth.basics.errors import UsageError
from synth.basics.foreign_json import parse_object
from synth.checkpoint.target import Target
from synth.checkpoint.wiring import Wiring, with_wiring

SHA256 = re.compile("[0-9a-f]{64}")
LARGEST_NOTES = 2**16  # bytes of JSON


def check_classifier(
    *,
    architecture: str,
    width: float,
    class_names: tuple[str, ...],
    input_shape: tuple[int, int, int],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    target: Target | None = None,
) -> None:
    """Raise ValueError for values that no classifier has, and for text that is not safe to print on a terminal."""
    channels, *sides = input_shape
    if len(sides) != 2 or not 1 <= channels <= 64 or not all(1 <= side <= 4096 for side in sides):
        raise ValueError(f"input shape {list(input_shape)} is not (channels, height, width)")
    if not 2 <= len(class_names) <= 100_000:
        raise ValueError(f"a classifier has 2 to 100,000 classes, not {len(class_names)}")
    if not all(isinstance(name, str) and name.isprintable() and len(name) <= 200 for name in class_names):
        raise ValueError("class names must be printable text of at most 200 characters")
    if not architecture.isprintable() or len(architecture) > 200:
        raise ValueError("the architecture must be printable text of at most 200 characters")
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"mean and std need {channels} values, one per channel")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError("mean and std must be finite, std above 0")
    if not 0 < width <= 16:
        raise ValueError(f"width {width} is not within (0, 16]")
    if target is not None and class_names != target.bin_names:
        raise ValueError("the classes of a regressor are the bins of its target, by their names")


def check_notes(notes: Mapping[str, Any], whose: str) -> None:
    """Raise ValueError for notes that take more room than any of ours: an audit copies them into its report."""
    size = len(json.dumps(notes))
    if size > LARGEST_NOTES:
        raise ValueError(f"{whose} take {size:,} bytes, more than {LARGEST_NOTES:,}")


def sha256_in(raw: object, whose: str) -> str:
    """The hash that a file from elsewhere gives for something. Raises ValueError if it is not a SHA-256."""
    if not isinstance(raw, str) or not SHA256.fullmatch(raw):
        raise ValueError(f"{whose} sha256 is not 64 hexadecimal digits")
    return raw


def check_classes(classes: Iterable[int], num_classes: int, what: str, owner: str = "the teacher") -> None:
    """Raise UsageError if a class index is out of range."""
    for index in classes:
        if index >= num_classes:
            raise UsageError(f"{what} {index} is out of range: {owner} has {num_classes} classes (0-{num_classes - 1})")


CARD_VERSION = 3  # version 1 has no wiring, version 2 no target


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a checkpoint states about its network. `mean` and `std` are per channel, for images in [0, 1].

    A regressor has a `target`, and its classes are the target's bins (`synth.checkpoint.target`).
    `origin` states which file the network was imported from, and in which form (see importing/origin.py).
    """

    architecture: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]  # (C, H, W)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    width: float = 1.0
    training: Mapping[str, Any] = field(default_factory=dict)
    wiring: Wiring = field(default_factory=Wiring)
    origin: Mapping[str, Any] = field(default_factory=dict)
    target: Target | None = None

    def __post_init__(self) -> None:
        check_classifier(
            architecture=self.architecture,
            width=self.width,
            class_names=self.class_names,
            input_shape=self.input_shape,
            mean=self.mean,
            std=self.std,
            target=self.target,
        )
        check_notes(self.training, "its facts about the training")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def kind(self) -> str:
        return "classification" if self.target is None else "regression"

    @property
    def outputs(self) -> int:
        """How many numbers the network returns per image."""
        if self.target is not None:
            return self.target.outputs
        return 1 if self.wiring.one_output else self.num_classes

    def to_json(self) -> str:
        """The card of a plain network has no entry `wiring`, so that its bytes are those of version 1. A
        classifier's card has no entry `target`.
        """
        raw = with_wiring(dataclasses.asdict(self), self.wiring)
        if not self.origin:
            del raw["origin"]
        if self.target is None:
            del raw["target"]
        version = CARD_VERSION if "target" in raw else 2 if "wiring" in raw else 1
        return json.dumps({"version": version, **raw}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """The card in `text`. Raises ValueError, KeyError, TypeError or OverflowError if there is none."""
        raw = parse_object(text)
        if raw["version"] > CARD_VERSION:
            raise ValueError(f"model card version {raw['version']} is newer than {CARD_VERSION}: update this package")
        return cls(
            architecture=str(raw["architecture"]),
            class_names=tuple(raw["class_names"]),
            input_shape=tuple(int(n) for n in raw["input_shape"]),  # type: ignore[arg-type]
            mean=tuple(float(v) for v in raw["mean"]),
            std=tuple(float(v) for v in raw["std"]),
            width=float(raw["width"]),
            training=dict(raw["training"]),
            wiring=Wiring.from_json(raw.get("wiring", {})),
            origin=dict(raw.get("origin", {})),
            target=Target.from_json(raw.get("target")),
        )
