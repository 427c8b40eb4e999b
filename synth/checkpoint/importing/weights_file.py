"""Read a file of weights in any of the forms that people have, without running code from it."""

from __future__ import annotations

import io
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from synth.basics.disk import sha256_of
from synth.basics.errors import UserError
from synth.basics.foreign_json import parse_object
from synth.basics.regular_files import open_regular
from synth.checkpoint.file import CARD_KEY, LARGEST_CHECKPOINT, header_length
from synth.checkpoint.importing.diagnosis import AGAIN, SAVE_WEIGHTS, what_folder_it_is, what_it_is
from synth.checkpoint.importing.inert import load_inert
from synth.checkpoint.pytorch_zip import refuse_compressed

DAMAGED = (KeyError, ValueError, TypeError)  # what a wrong header raises


@dataclass(frozen=True)
class WeightsFile:
    """The content of a file.

    `not_loaded` names the classes in it that were not loaded. `metadata` is the text in the header of a safetensors
    file.
    """

    path: Path
    sha256: str
    content: Any
    not_loaded: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None


def read_weights(path: Path) -> WeightsFile:
    """The content of a file of `torch.save` or of safetensors, by its bytes and not by its name.

    Objects other than tensors, numbers, text and containers are not loaded, and none of their code runs. Raises
    UserError if the file is missing, damaged, or something else, which the error names.
    """
    data = read_bytes(path)
    digest = sha256_of(data)
    if data[8:9] == b"{" and header_length(data) < len(data):
        try:
            metadata = safetensors_metadata(data)
            if CARD_KEY in metadata:
                raise UserError(f"{path} is a checkpoint of this package already: use it as it is")
            return WeightsFile(path, digest, load_safetensors(data), metadata=metadata)
        except (SafetensorError, *DAMAGED) as error:
            raise UserError(f"{path} is a damaged safetensors file ({error}): {AGAIN}") from error
    named = what_it_is(data, path)
    if named is not None:
        raise UserError(f"{path} {named}")
    refuse_compressed(io.BytesIO(data), str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other versions
            return WeightsFile(path, digest, torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except pickle.UnpicklingError:
        pass  # it holds other objects, or it is damaged
    except Exception as error:  # the unpickler raises any error for damaged bytes
        raise UserError(f"{path} is truncated or not a PyTorch file: {AGAIN}") from error
    try:
        content, not_loaded = load_inert(data)
    except Exception as error:
        raise UserError(
            f"{path} is truncated or not a PyTorch file ({AGAIN}), or it holds objects that only their own code can "
            f"read (where that code is installed, {SAVE_WEIGHTS})"
        ) from error
    return WeightsFile(path, digest, content, tuple(not_loaded))


def safetensors_metadata(data: bytes) -> dict[str, Any]:
    """The text entries in the header. Raises ValueError if it is damaged."""
    return parse_object(data[8 : 8 + header_length(data)]).get("__metadata__") or {}


def read_bytes(path: Path) -> bytes:
    """The bytes of the file. Raises UserError if there are none."""
    try:
        with open_regular(path, LARGEST_CHECKPOINT) as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: {SAVE_WEIGHTS}, and name that file") from None
    except IsADirectoryError:
        raise UserError(f"{path} {what_folder_it_is(path)}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
