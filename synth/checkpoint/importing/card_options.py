"""The card that the options of `unlearn import` describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from synth.basics.errors import UsageError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.target import Target

T = TypeVar("T")
HOW = {
    "--input-shape": "channels,height,width such as 3,224,224",
    "--classes": "their names or their number (or --classes-file a file of names)",
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
    target: Target | None = None  # of a regressor; its bins are the class names

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
    if shape and shape[2] in (1, 3) and min(shape[:2]) > 4:
        raise UsageError(f"--input-shape {input_shape} has the channels last: give {shape[2]},{shape[0]},{shape[1]}")
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
    shape, names, mean, std = facts.input_shape, facts.class_names, facts.mean, facts.std
    if shape is None or names is None or mean is None or std is None:
        stated = zip(HOW, (shape, names, mean, std), strict=True)
        missing = [option for option, value in stated if value is None]
        verb = "is" if len(missing) == 1 else "are"
        how = "; ".join(f"{option} takes {HOW[option]}" for option in missing)
        raise UsageError(f"{', '.join(missing)} {verb} missing: {how}")
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
            target=facts.target,
        )
    except ValueError as error:
        raise UsageError(f"--input-shape, --classes, --mean and --std do not fit together: {error}") from error


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value for all channels is the value of each."""
    return tuple(values) * channels if len(values) == 1 else tuple(values)


def numbers_in(option: str, text: str, kind: Callable[[str], T], example: str) -> tuple[T, ...]:
    """The numbers in an option's text. Raises UsageError with the example if there is anything else."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} '{text}' is not a list of numbers: write it like {example}") from None
