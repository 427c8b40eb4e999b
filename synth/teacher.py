"""Checkpoints: one safetensors file that holds a classifier's weights and everything needed to run it.

The file's metadata has one entry, `model_card`, in JSON: architecture, class names, input shape, normalisation, and the
facts of the training run. A checkpoint from elsewhere is hostile until checked: no pickle is read, the card's values are
bounded, shapes are compared before anything large is built, and code of the user's own runs only where the user names it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from synth.cards import check_classifier
from synth.errors import UsageError, UserError
from synth.models import build

CARD_KEY = "model_card"
CARD_VERSION = 1
LARGEST_HEADER = 16 * 2**20  # bytes
IMPORT_AGAIN = "import it again with the --input-shape that it was trained with"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a checkpoint says about its network. `mean` and `std` are per channel, for images in [0, 1]."""

    architecture: str
    class_names: tuple[str, ...]
    input_shape: tuple[int, int, int]  # (C, H, W)
    mean: tuple[float, ...]
    std: tuple[float, ...]
    width: float = 1.0
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_classifier(
            architecture=self.architecture,
            width=self.width,
            class_names=self.class_names,
            input_shape=self.input_shape,
            mean=self.mean,
            std=self.std,
        )

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def to_json(self) -> str:
        return json.dumps({"version": CARD_VERSION, **dataclasses.asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """The card in `text`. Raises ValueError, KeyError, TypeError, OverflowError or RecursionError where it isn't one."""
        raw = json.loads(text)
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
        )


@dataclass(frozen=True)
class Arithmetic:
    """How a network's layers are computed; `synth.compute` chooses. Weights, images and losses are float32 in any case."""

    bfloat16: bool = False
    channels_last: bool = False

    def __str__(self) -> str:
        return ("bfloat16" if self.bfloat16 else "float32") + (", channels-last" if self.channels_last else "")


class Classifier(nn.Module):
    """A network with its card. Takes images in [0, 1], (N, C, H, W), normalises them itself, returns logits (N, K)."""

    mean: Tensor
    std: Tensor
    arithmetic = Arithmetic()

    def __init__(self, net: nn.Module, card: ModelCard, digest: str | None = None) -> None:
        super().__init__()
        self.net = net
        self.card = card
        self.digest = digest
        self.register_buffer("mean", torch.tensor(card.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(1, -1, 1, 1), persistent=False)

    @classmethod
    def untrained(cls, card: ModelCard, seed: int) -> Classifier:
        """A freshly initialised network of the card's shape, a function of the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(build_for(card), card)

    def forward(self, x_unit: Tensor) -> Tensor:
        return self.logits((x_unit - self.mean) / self.std)

    def logits(self, x_norm: Tensor) -> Tensor:
        """Of normalised images, in the arithmetic that was chosen."""
        if self.arithmetic.channels_last:
            x_norm = x_norm.contiguous(memory_format=torch.channels_last)
        if not self.arithmetic.bfloat16:
            return self.net(x_norm)
        with torch.autocast(x_norm.device.type, torch.bfloat16):
            return self.net(x_norm).float()

    def compute_by(self, arithmetic: Arithmetic) -> Classifier:
        """Choose the arithmetic, and lay the weights out for it."""
        self.arithmetic = arithmetic
        self.net.to(memory_format=torch.channels_last if arithmetic.channels_last else torch.contiguous_format)
        return self

    def freeze(self) -> Classifier:
        """Evaluation mode, and no gradients towards the weights."""
        return self.eval().requires_grad_(False)


def build_for(card: ModelCard) -> nn.Module:
    return build(card.architecture, card.input_shape[0], card.num_classes, card.input_shape[1], card.width)


def expected_state(card: ModelCard) -> dict[str, Tensor]:
    """The state dict of the card's network, without memory for its values. Raises UsageError where it can't be built."""
    with torch.device("meta"):
        return build_for(card).state_dict()


@torch.no_grad()
def check_forward(model: Classifier, cure: str) -> None:
    """Raise UsageError where the network doesn't make logits (N, K) of images as its card says, found by two black ones.

    Nothing about the model changes, nor any random state.
    """
    card, modes = model.card, [(module, module.training) for module in model.modules()]
    x_unit = torch.zeros(2, *card.input_shape, device=model.mean.device)
    try:
        with torch.random.fork_rng(devices=[]):
            logits = model.eval()(x_unit)
    except Exception as error:  # torchvision's models and users' own raise anything here
        lines = str(error).splitlines() or [type(error).__name__]
        raise UsageError(
            f"{card.architecture} can't take images {list(card.input_shape)} ({lines[0].rstrip('.')}): {cure}"
        ) from error
    finally:
        for module, training in modes:
            module.training = training
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != [2, card.num_classes]:
        raise UsageError(
            f"{card.architecture} makes {shape} of 2 images {list(card.input_shape)}, not logits [2, {card.num_classes}]: {cure}"
        )


def checkpoint_bytes(model: Classifier) -> bytes:
    # Copies, as a file of safetensors holds no tensor twice: weights may be tied.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.net.state_dict().items()
    }
    return save_tensors(tensors, metadata={CARD_KEY: model.card.to_json()})


def save_checkpoint(model: Classifier, path: Path) -> str:
    """Write the checkpoint, complete or not at all, and return its sha256."""
    data = checkpoint_bytes(model)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the checkpoint {path}: {error.strerror or error}") from error
    return hashlib.sha256(data).hexdigest()


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
    return Classifier(net, card, hashlib.sha256(data).hexdigest()).freeze()


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


@torch.no_grad()
def predict(model: nn.Module, x_unit: Tensor, batch_size: int = 1000) -> Tensor:
    """Logits (N, K), float32 on the CPU, for float images in [0, 1] or uint8 images, made batch by batch."""
    device = next(model.parameters()).device
    logits = [model(to_unit(batch.to(device))).float().cpu() for batch in x_unit.split(batch_size)]
    return torch.cat(logits)


def to_unit(images: Tensor) -> Tensor:
    """uint8 images as floats in [0, 1]; floats pass unchanged."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def to_uint8(x_unit: Tensor) -> Tensor:
    """Images in [0, 1] rounded to the 8-bit pixels that a PNG can hold."""
    return (x_unit.detach().clamp(0, 1) * 255).round().to(torch.uint8)
