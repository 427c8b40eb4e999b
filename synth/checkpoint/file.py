"""Checkpoints: one safetensors file with a classifier's weights and everything needed to run it.

The file's metadata has one entry, `model_card`, in JSON: architecture, class names, input shape, normalisation, facts
about the training, and for an imported network the form of the file that it came from. A checkpoint from elsewhere may
be hostile. So no pickle is read, the card's values are bounded, shapes are compared before anything large is built, and
code outside the installed packages runs only if the user names it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from synth.basics.disk import create_folder, refuse_to_replace, sha256_of, write_file
from synth.basics.errors import UsageError, UserError
from synth.basics.foreign_json import parse_object
from synth.basics.regular_files import open_regular
from synth.checkpoint.building import names_code
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier, build_for, check_forward, expected_state

CARD_KEY = "model_card"
STUDENT, SETTINGS = "student.safetensors", "settings.json"  # in the folder of a run of `unlearn`
LARGEST_CHECKPOINT = 16 * 2**30  # bytes
LARGEST_HEADER = 16 * 2**20  # bytes
LARGEST_NUMBER = 8  # bytes, of a float64
IMPORT_AGAIN = "import it again with the --input-shape of its training"


def checkpoint_bytes(model: Classifier) -> bytes:
    """The checkpoint file of the classifier."""
    # Copies, because weights may be tied and a safetensors file holds no tensor twice.
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

    `trusted_architecture` is the `module:function` that the user allows to run, or several of them, separated by
    commas. A checkpoint cannot choose code by itself. Raises UserError if the file is missing, damaged, or not one of
    our checkpoints, or if its network does not take the images that its card tells of.
    """
    model = parse_checkpoint(read_checkpoint(path, trusted_architecture), str(path), trusted_architecture)
    check_forward(model, f"name another file than {path}, or {IMPORT_AGAIN}")
    return model


def read_checkpoint(path: Path, trusted_architecture: str | None = None) -> bytes:
    """The bytes of the file. No more of it is read than its card's network can fill.

    Raises UserError if it cannot be read, or is no checkpoint of ours.
    """
    with opened(path) as (file, start, size):
        check_size(start, size, str(path), trusted_architecture)
        return start + file.read(size - len(start))


def student_file(path: Path) -> Path:
    """The checkpoint that a user names directly or by its run's folder. Raises UserError for a folder without one."""
    if not os.path.isdir(path):  # pathlib raises where a name is too long for a file
        return path
    if (path / STUDENT).exists():
        return path / STUDENT
    if (path / SETTINGS).exists():
        raise UserError(
            f"the run in {path} has no {STUDENT} yet: finish it with its own command and --resume, or start it again "
            "with --overwrite"
        )
    inside = sorted(folder.parent.name for folder in path.glob(f"*/{STUDENT}"))
    cure = f"a run in it, such as {path / inside[0]}" if inside else "a checkpoint, or the folder of a run of 'unlearn'"
    raise UserError(f"the folder {path} holds no {STUDENT}: name {cure}")


def read_card(path: Path) -> ModelCard:
    """The model card of the file, read without the weights. Raises UserError if there is none."""
    with opened(path) as (_, start, size):
        return parse_card(start, str(path), size)


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, bytes, int]]:
    """The file behind its header, the bytes until there, and its size. Raises UserError if it cannot be read."""
    try:
        with open_regular(path, LARGEST_CHECKPOINT) as file:
            start, size = file.read(8), os.fstat(file.fileno()).st_size
            start += file.read(min(header_length(start), LARGEST_HEADER, size))
            yield file, start, size
    except FileNotFoundError:
        if not path.suffix:
            raise UserError(
                f"there is no checkpoint or run folder {path}: make a run with 'unlearn distill --out {path} ...', or "
                f"a checkpoint with 'unlearn train' or 'unlearn import' and --out {path}.safetensors"
            ) from None
        raise UserError(
            f"there is no checkpoint {path}: train one with 'unlearn train --arch lenet5 --data digits --out {path}', "
            f"or bring your own with 'unlearn import model.pt --out {path} ...'"
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: name the checkpoint in it, such as {path / STUDENT}") from None
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error


def check_size(start: bytes, size: int, name: str, trusted_architecture: str | None) -> None:
    """Raise UserError if a file of `size` bytes that starts like this is not one of our checkpoints, or if it is larger
    than its network's weights. The size of a network of the user's own code is not known without running the code.
    """
    card = parse_card(start, name, size)
    refuse_untrusted(card.architecture, trusted_architecture, name)
    if names_code(card.architecture):
        return
    weights = sum(LARGEST_NUMBER * value.numel() for value in expected_state(card).values())
    if size > 8 + LARGEST_HEADER + weights:
        raise UserError(
            f"{name} has {size:,} bytes, but the weights of {card.architecture} have {weights:,} at most: copy it "
            "again from its source"
        )


def parse_checkpoint(data: bytes, name: str, trusted_architecture: str | None = None) -> Classifier:
    """The classifier in a checkpoint's bytes, frozen. Errors call it `name`. Raises UserError as `load_checkpoint`."""
    card = parse_card(data, name)
    refuse_untrusted(card.architecture, trusted_architecture, name)
    try:
        tensors = load_tensors(data)
    except (SafetensorError, KeyError) as error:  # KeyError: a number type that torch does not have
        raise UserError(f"{name} is damaged ({error}): copy it again from its source") from error
    net = build_with(card, tensors, name)
    as_loaded = net.state_dict()  # a float64 may overflow the network's float32
    check_finite(as_loaded, name, "use an earlier one")
    return Classifier(net, card, sha256_of(data)).freeze()


def build_with(card: ModelCard, tensors: Mapping[str, Tensor], name: str) -> nn.Module:
    """The card's network with these weights. Raises UserError if they do not fit it.

    The shapes of a network that a file may choose are compared before the network takes memory. Code that the user
    named runs once only, because it may be slow.
    """
    if names_code(card.architecture):
        net = build_for(card)
        check_state(net.state_dict(), tensors, name, card.architecture)
    else:
        check_state(expected_state(card), tensors, name, card.architecture)
        net = build_for(card)
    load_weights(net, tensors)
    return net


def load_weights(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load weights that fit the network.

    Some networks, such as MNASNet, look for the version of their own code in the state dict, which a safetensors file
    does not hold. Weights that fit are of the present version.
    """
    state = OrderedDict(tensors)
    state._metadata = net.state_dict()._metadata  # type: ignore[attr-defined]
    net.load_state_dict(state)


def check_finite(state: Mapping[str, Tensor], name: str, cure: str) -> None:
    """Raise UserError if a weight of the file `name` is NaN or infinite."""
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"{name} holds NaN or infinite weights in {key}: the training run diverged, {cure}")


def refuse_untrusted(architecture: str, trusted: str | None, whose: str, option: str = "--arch") -> None:
    """Raise UserError if a file asks for code that the user has not named with `option`. `whose` names the file.

    `trusted` may hold several names, separated by commas.
    """
    if names_code(architecture) and architecture not in (trusted or "").split(","):
        raise UserError(
            f"{whose} asks to run the code {architecture}: if you trust this code, give {option} {architecture}"
        )


def parse_card(data: bytes, name: str, size: int | None = None) -> ModelCard:
    """The model card in a checkpoint's header, read without the weights. Raises UserError if there is none.

    `size` is the file's number of bytes where `data` is only its start.
    """
    # A safetensors file begins with the length of its header, which may look like the start of a pickle.
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x04") and data[8:9] != b"{":
        raise UserError(
            f"{name} is a pickled PyTorch file, which can run code when loaded: "
            f"turn it into a checkpoint with 'unlearn import {name} --arch ... --out teacher.safetensors'"
        )
    try:
        text = card_text(data, CARD_KEY, LARGEST_HEADER, size)
    except EOFError as error:
        raise UserError(f"{name} is {error}: copy it again from its source") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{name} has no model card: make it a checkpoint with 'unlearn import {name} --arch ... --out "
            "teacher.safetensors'"
        ) from None
    try:
        return ModelCard.from_json(text)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{name} has a broken model card: {error}") from error


def card_text(data: bytes, key: str, largest: int, size: int | None = None) -> str:
    """The entry `key` of the metadata in a safetensors header of at most `largest` bytes, read without the weights.

    `size` is the file's number of bytes where `data` is only its start. Raises EOFError if the file is incomplete, and
    ValueError, KeyError or TypeError if there is no such entry.
    """
    length = header_length(data)
    if len(data) < 8 or length > min(largest, (size or len(data)) - 8):
        raise EOFError("truncated or not a safetensors file")
    text = parse_object(data[8 : 8 + length])["__metadata__"][key]
    if not isinstance(text, str):
        raise TypeError(f"{key} is not text")
    return text


def header_length(data: bytes) -> int:
    """The length in bytes of a safetensors file's header, which comes after these first eight bytes."""
    return int.from_bytes(data[:8], "little")


def check_state(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], name: str, architecture: str) -> None:
    """Raise UserError if the state dict `found` has other keys, shapes or dtypes than `expected`."""
    missing, unknown = [k for k in expected if k not in found], [k for k in found if k not in expected]
    if missing:
        instead = f"; it has {listed(unknown)} instead" if unknown else ""
        raise UserError(f"{name} does not fit {architecture}: it has no weights {listed(missing)}{instead}")
    if unknown:
        raise UserError(f"{name} does not fit {architecture}: it has the unknown weights {listed(unknown)}")
    for key, value in expected.items():
        refuse_special(found[key], key, name)
        if found[key].shape != value.shape:
            raise UserError(
                f"{name} does not fit {architecture} of this width and number of classes: "
                f"{key} has shape {list(found[key].shape)} where {list(value.shape)} is expected"
            )
        if kind_of(found[key].dtype) != kind_of(value.dtype):
            types = [str(dtype).removeprefix("torch.") for dtype in (found[key].dtype, value.dtype)]
            raise UserError(f"{name} holds {key} as {types[0]}, not as {types[1]}: save it again as {types[1]}")


def listed(keys: Sequence[str], most: int = 3) -> str:
    """The first keys in words: `a, b, c and 9 more`."""
    more = len(keys) - most
    return ", ".join(key[:200] for key in keys[:most]) + (f" and {more} more" if more > 0 else "")


def refuse_special(tensor: Tensor, key: str, name: str) -> None:
    """Raise UserError for a tensor without plain numbers in memory. Most functions of torch do not accept it."""
    special = {
        "nested": tensor.is_nested,
        "sparse": tensor.layout != torch.strided,
        "quantized": tensor.is_quantized,
        "meta": tensor.is_meta,
    }
    kinds = [kind for kind, is_it in special.items() if is_it]
    if kinds:
        raise UserError(f"{name} holds {key} as a {kinds[0]} tensor: save it again as a plain one")


def kind_of(dtype: torch.dtype) -> str:
    """The dtype family: "float", "integer", or the dtype itself. Weights may be loaded only from the same family."""
    if dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return "float"
    return "integer" if dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64) else str(dtype)


def refuse_existing(checkpoint: Path, overwrite: bool) -> None:
    """Raise UsageError if the checkpoint to write exists already, and UserError if its folder cannot be made.

    Called before the work begins, so that no result is lost.
    """
    if checkpoint.is_dir():
        raise UsageError(
            f"{checkpoint} is a folder: name the file to write, such as {checkpoint / 'teacher.safetensors'}"
        )
    refuse_to_replace(checkpoint)
    if checkpoint.exists() and not overwrite:
        raise UsageError(f"{checkpoint} exists already: replace it with --overwrite, or choose another --out")
    create_folder(checkpoint.parent)
