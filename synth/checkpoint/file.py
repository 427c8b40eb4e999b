"""Checkpoints: one safetensors file that holds a classifier's weights and everything needed to run it.

The file's metadata has one entry, `model_card`, in JSON: architecture, class names, input shape, normalisation, and the
facts of the training run. A checkpoint from elsewhere is hostile until checked: no pickle is read, the card's values are
bounded, shapes are compared before anything large is built, and code of the user's own runs only where the user names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from synth.basics.disk import create_folder, sha256_of, write_file
from synth.basics.errors import UsageError, UserError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier, build_for, expected_state

CARD_KEY = "model_card"
LARGEST_HEADER = 16 * 2**20  # bytes
IMPORT_AGAIN = "import it again with the --input-shape that it was trained with"


def checkpoint_bytes(model: Classifier) -> bytes:
    # Copies, as a file of safetensors holds no tensor twice: weights may be tied.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.net.state_dict().items()
    }
    return save_tensors(tensors, metadata={CARD_KEY: model.card.to_json()})


def save_checkpoint(model: Classifier, path: Path) -> str:
    """Write the checkpoint, complete or not at all, and return its sha256. Raises UserError if it cannot be written."""
    data = checkpoint_bytes(model)
    create_folder(path.parent)
    write_file(path, data)
    return sha256_of(data)


def load_checkpoint(path: Path, trusted_architecture: str | None = None) -> Classifier:
    """The classifier in the file, frozen.

    `trusted_architecture` is the `module:function` that the user allows to run, or several, separated by commas; a
    checkpoint alone can't choose code.
    Raises UserError where the file is missing, damaged, or not a checkpoint of ours.
    """
    return parse_checkpoint(read_checkpoint(path), str(path), trusted_architecture)


def read_checkpoint(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"there is no checkpoint {path}: train one with 'unlearn train --arch lenet5 --data digits --out {path}', "
            f"or bring your own with 'unlearn import model.pt --out {path} ...'"
        ) from None
    except IsADirectoryError:
        raise UserError(
            f"{path} is a folder: name the checkpoint in it, such as {path / 'student.safetensors'}"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error


def parse_checkpoint(data: bytes, name: str, trusted_architecture: str | None = None) -> Classifier:
    """The classifier in a checkpoint's bytes, frozen. `name` is what errors call it."""
    card = parse_card(data, name)
    refuse_untrusted(card.architecture, trusted_architecture, name)
    try:
        tensors = load_tensors(data)
    except (SafetensorError, KeyError) as error:  # KeyError: a type of number that torch doesn't have
        raise UserError(f"{name} is damaged ({error}): get it again from where it was made") from error
    check_state(expected_state(card), tensors, name, card.architecture)
    net = build_for(card)
    net.load_state_dict(tensors)
    as_loaded = net.state_dict()  # a float64 may be too large for the network's float32
    check_finite(as_loaded, name, "use an earlier one")
    return Classifier(net, card, sha256_of(data)).freeze()


def check_finite(state: Mapping[str, Tensor], name: str, cure: str) -> None:
    """Raise UserError where the weights of the file `name` are not all numbers."""
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{name} holds NaN or infinite weights in {key}: the training run diverged, {cure}")


def refuse_untrusted(architecture: str, trusted: str | None, whose: str, option: str = "--arch") -> None:
    """Raise UserError where a file would choose code that the user hasn't named with `option`. `whose` names the file.

    `trusted` may be several names, separated by commas.
    """
    if ":" in architecture and architecture not in (trusted or "").split(","):
        raise UserError(
            f"{whose} wants to run the code {architecture}: if you trust it, say so with {option} {architecture}"
        )


def parse_card(data: bytes, name: str) -> ModelCard:
    """The model card in a checkpoint's header, read without touching the weights."""
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise UserError(
            f"{name} is a pickled PyTorch file, which can run code when loaded: "
            f"turn it into a checkpoint with 'unlearn import {name} --arch ... --out teacher.safetensors'"
        )
    try:
        text = card_text(data, CARD_KEY, LARGEST_HEADER)
    except EOFError as error:
        raise UserError(f"{name} is {error}: get it again from where it was made") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{name} has no model card: make it a checkpoint with 'unlearn import {name} --arch ... --out teacher.safetensors'"
        ) from None
    try:
        return ModelCard.from_json(text)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{name} has a broken model card: {error}") from error


def card_text(data: bytes, key: str, largest: int) -> str:
    """The entry `key` of the metadata in a safetensors header of at most `largest` bytes, read without touching the weights.

    Raises EOFError where the file is not whole, and ValueError, KeyError, TypeError or RecursionError where the entry isn't there.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(largest, len(data) - 8):
        raise EOFError("truncated or not a safetensors file")
    return json.loads(data[8 : 8 + length])["__metadata__"][key]


def check_state(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], name: str, architecture: str) -> None:
    """Raise UserError where a state dict is not one of the architecture's."""
    for key, value in expected.items():
        if key not in found:
            raise UserError(f"{name} is no {architecture}: it lacks the weights {key}")
        if found[key].shape != value.shape:
            raise UserError(
                f"{name} is no {architecture} of this width and number of classes: "
                f"{key} has shape {list(found[key].shape)} where {list(value.shape)} is expected"
            )
        if kind_of(found[key].dtype) != kind_of(value.dtype):
            types = [str(dtype).removeprefix("torch.") for dtype in (found[key].dtype, value.dtype)]
            raise UserError(f"{name} holds {key} as {types[0]}, which is no {types[1]}: save it anew as that")
    for key in found:
        if key not in expected:
            raise UserError(f"{name} is no {architecture}: it has the unknown weights {key}")


def kind_of(dtype: torch.dtype) -> str:
    """Of numbers, those that a network's can be loaded from without another meaning. Others are kinds of their own, float8 too."""
    if dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return "float"
    return "integer" if dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64) else str(dtype)


def refuse_existing(checkpoint: Path, overwrite: bool) -> None:
    """Raise UsageError where the checkpoint to write is there already, or can't be: before it is made, not after."""
    if checkpoint.is_dir():
        raise UsageError(
            f"{checkpoint} is a folder: name the file to write, such as {checkpoint / 'teacher.safetensors'}"
        )
    if checkpoint.exists() and not overwrite:
        raise UsageError(f"{checkpoint} is there already: replace it with --overwrite, or choose another --out")
    create_folder(checkpoint.parent)
