"""From a plain PyTorch state dict to a checkpoint."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from synth.basics.errors import UsageError, UserError
from synth.basics.regular_files import open_regular
from synth.checkpoint.building import AUXILIARY_HEADS
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier, build_for, check_forward, expected_state
from synth.checkpoint.file import LARGEST_CHECKPOINT, check_finite, check_state, save_checkpoint
from synth.checkpoint.pytorch_zip import refuse_compressed

T = TypeVar("T")


def parse_card_options(
    architecture: str, width: float, input_shape: str, classes: str, mean: str, std: str
) -> ModelCard:
    """The card that the options describe. Raises UsageError if a value is malformed."""
    names = tuple(map(str, range(int(classes)))) if classes.isdigit() else tuple(n.strip() for n in classes.split(","))
    if len(set(names)) < len(names) or "" in names:
        raise UsageError(f"--classes '{classes}' has a name twice, or an empty one: give each class its own name")
    shape = parse_numbers("--input-shape", input_shape, int, "3,32,32")
    if len(shape) != 3:
        raise UsageError(f"--input-shape '{input_shape}' is not a shape: write it like 3,32,32")
    means, deviations = (
        parse_numbers("--mean", mean, float, "0.49,0.48,0.45"),
        parse_numbers("--std", std, float, "0.25,0.24,0.26"),
    )
    if max(map(abs, means)) > 2 or max(map(abs, deviations)) > 2:
        raise UsageError(f"--mean {mean} and --std {std} are not for images in [0, 1]: divide them by 255")
    try:
        return ModelCard(
            architecture=architecture,
            width=width,
            class_names=names,
            input_shape=(shape[0], shape[1], shape[2]),
            mean=means,
            std=deviations,
            training={"imported": True},
        )
    except ValueError as error:
        raise UsageError(f"--input-shape, --mean and --std do not fit together: {error}") from error


def parse_numbers(option: str, text: str, kind: Callable[[str], T], example: str) -> tuple[T, ...]:
    """The numbers in an option's text. Raises UsageError with the example if there is anything else."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} '{text}' is not a list of numbers: write it like {example}") from None


def import_state_dict(path: Path, card: ModelCard, out: Path) -> str:
    """Write the checkpoint, without auxiliary heads, and return its sha256. No code in the file runs.

    Raises:
        UserError: the file is missing, holds more than weights, NaN, or the weights of another architecture.
        UsageError: the network does not accept images of the card's shape.
    """
    heads = AUXILIARY_HEADS.get(card.architecture, ())
    state = {key: value for key, value in unwrap(read_weights(path), path).items() if not key.startswith(heads)}
    check_state(expected_state(card), state, str(path), card.architecture)
    check_finite(state, str(path), "save an earlier one")
    net = build_for(card)
    net.load_state_dict(state)
    model = Classifier(net, card)
    check_forward(model, "give the --input-shape of its training")
    return save_checkpoint(model, out)


def read_weights(path: Path) -> Any:
    """The content of a file that `torch.save` wrote. Raises UserError if it holds anything but weights."""
    try:
        with open_regular(path, LARGEST_CHECKPOINT) as file:
            refuse_compressed(file, str(path))
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"there is no file {path}: save one from your model with torch.save(model.state_dict(), path)"
        ) from None
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than weights (pickled objects can run code, so they are not loaded): "
            "save only the weights with torch.save(model.state_dict(), path)"
        ) from error
    except Exception as error:  # the unpickler raises any error for damaged bytes
        raise UserError(f"{path} is truncated or not a PyTorch file: get it again from where it was made") from error


def unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict, also from an entry `state_dict` or `model`, and without the prefix `module.` of DataParallel."""
    for entry in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(entry), dict):
            content = content[entry]
    if not isinstance(content, dict) or not content or not all(map(is_weight, content.items())):
        raise UserError(f"{path} holds no state dict: save one with torch.save(model.state_dict(), path)")
    return {key.removeprefix("module."): value for key, value in content.items()}


def is_weight(entry: tuple[Any, Any]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], Tensor)
