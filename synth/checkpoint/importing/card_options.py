"""The card that the options of `unlearn import` describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from synth.basics.errors import UsageError
from synth.checkpoint.card import ModelCard

T = TypeVar("T")
HOW = {
    "--input-shape": "channels,height,width such as 3,224,224",
    "--classes": "their number or their names, or name a file with --classes-file",
    "--mean": "one per channel for images in [0, 1], or one for all, such as 0.485,0.456,0.406",
    "--std": "one per channel for images in [0, 1], or one for all, such as 0.229,0.224,0.225",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known about a network from the maker of its weights or from the options; None where it is not."""

    class_names: tuple[str, ...] | None = None
    input_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def over(self, other: Facts) -> Facts:
        """These facts, and the other's where these have none."""
        return replace(other, **{name: value for name, value in vars(self).items() if value is not None})


def facts_from_options(
    input_shape: str | None, class_names: tuple[str, ...] | None, mean: str | None, std: str | None
) -> Facts:
    """What the options state. Raises UsageError if a value is malformed."""
    shape = numbers_in("--input-shape", input_shape, int, "3,32,32") if input_shape else None
    if shape and len(shape) != 3:
        raise UsageError(f"--input-shape '{input_shape}' is not a shape: write it like 3,32,32")
    means = numbers_in("--mean", mean, float, "0.49,0.48,0.45") if mean else None
    deviations = numbers_in("--std", std, float, "0.25,0.24,0.26") if std else None
    if max(map(abs, (*(means or ()), *(deviations or ()), 0))) > 2:
        raise UsageError(f"--mean {mean} and --std {std} are not for images in [0, 1]: divide them by 255")
    return Facts(
        class_names=class_names,
        input_shape=(shape[0], shape[1], shape[2]) if shape else None,
        mean=means,
        std=deviations,
    )


def card_for(architecture: str, width: float, facts: Facts) -> ModelCard:
    """The card of a network with these facts. Raises UsageError if one is missing, or if they do not fit together."""
    shape, names = given("--input-shape", facts.input_shape), given("--classes", facts.class_names)
    mean, std = given("--mean", facts.mean), given("--std", facts.std)
    if len(names) == 1:
        raise UsageError("a network with one output decides between two classes: name both, such as --classes no,yes")
    try:
        return ModelCard(
            architecture=architecture,
            width=width,
            class_names=names,
            input_shape=shape,
            mean=per_channel(mean, shape[0]),
            std=per_channel(std, shape[0]),
            training={"imported": True},
        )
    except ValueError as error:
        raise UsageError(f"--input-shape, --classes, --mean and --std do not fit together: {error}") from error


def given(option: str, value: T | None) -> T:
    """The value. Raises UsageError if there is none."""
    if value is None:
        raise UsageError(f"{option} is missing: give {HOW[option]}")
    return value


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value for all channels is the value of each."""
    return tuple(values) * channels if len(values) == 1 else tuple(values)


def numbers_in(option: str, text: str, kind: Callable[[str], T], example: str) -> tuple[T, ...]:
    """The numbers in an option's text. Raises UsageError with the example if there is anything else."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} '{text}' is not a list of numbers: write it like {example}") from None
