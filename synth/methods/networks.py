"""Networks that make images from noise, and the checkpoint of a trained one.

`Generator` is GKT's, without classes. Synthesis trains a `ClassGenerator`: the class is an input, no pixel leaves the
range of real pixels, and its size follows the teacher's, because a usual generator for 32x32 images costs 400 times as
much as LeNet5.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from synth.basics.errors import UserError
from synth.basics.foreign_json import parse_object
from synth.checkpoint.card import ModelCard
from synth.checkpoint.file import card_text

CARD_KEY = "generator_card"
CARD_VERSION = 2  # version 1 has no `classes`
LARGEST_HEADER = 2**20  # bytes
LARGEST_GENERATOR = 2**30  # bytes; usual ones have less than ten million
SMALLEST_SIDE = 8  # pixels; a generator starts from a map with at most this side and doubles it
MOST_ONE_HOT = 64  # classes; a generator of more has an embedding of each class, as long as the noise


class Generator(nn.Module):
    """Noise (N, Z) to images (N, C, H, W) in normalised pixels.

    The network of GKT (Chundawat et al. 2023): a linear layer to maps of H/4 + 1 by W/4 + 1, twice enlarged and
    convolved, and a 7x7 convolution that removes the margin of 4. Batch norm on the image comes last, so pixels are
    spread like those of a normalised image, without bounds. GKT has 128 `channels`. A small teacher needs far fewer,
    and the generator takes most of a run's time.
    """

    def __init__(self, z: int, channels: int, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = image_shape[1:]
        rows, columns = (-(-side // 4) + 1 for side in self.size)
        narrow = max(1, channels // 2)
        self.net = nn.Sequential(
            *(nn.Linear(z, channels * rows * columns), nn.Unflatten(1, (channels, rows, columns))),
            *(nn.BatchNorm2d(channels), nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1)),
            *(nn.BatchNorm2d(channels), nn.LeakyReLU(0.2), nn.Upsample(scale_factor=2)),
            *(nn.Conv2d(channels, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(narrow, image_shape[0], 7, padding=1), nn.BatchNorm2d(image_shape[0])),
        )

    @classmethod
    def untrained(cls, z: int, channels: int, image_shape: tuple[int, int, int], seed: int) -> Generator:
        """A newly initialised network. The weights depend on the seed only."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(z, channels, image_shape)

    def forward(self, z: Tensor) -> Tensor:
        return middle(self.net(z), self.size)


def middle(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle H rows and W columns of images that may be larger, for `size` (H, W)."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[-2:], size, strict=True))
    return x[..., top : top + size[0], left : left + size[1]]


@dataclass(frozen=True, kw_only=True)
class GeneratorCard:
    """What a generator's checkpoint states about it. `mean` and `std` are its teacher's, per channel."""

    z: int  # length of the noise
    channels: int
    image_shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    teacher_sha256: str
    student_sha256: str | None = None  # the student that it was trained against
    classes: tuple[int, ...] | None = None  # the only classes that it can draw, in ascending order; None means all
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        channels, *sides = self.image_shape
        if len(sides) != 2 or not 1 <= channels <= 64 or not all(1 <= side <= 4096 for side in sides):
            raise ValueError(f"image shape {list(self.image_shape)} is not (channels, height, width)")
        if not (1 <= self.z <= 65536 and 1 <= self.channels <= 4096 and 1 <= self.num_classes <= 100_000):
            raise ValueError("its noise, channels or classes are out of range")
        if len(self.mean) != channels or len(self.std) != channels:
            raise ValueError(f"mean and std need {channels} values, one per channel")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError("mean and std must be finite, std above 0")
        if tuple(sorted(set(self.drawn))) != self.drawn or not self.drawn:
            raise ValueError("its classes are not distinct and in ascending order")
        if not 0 <= self.drawn[0] <= self.drawn[-1] < self.num_classes:
            raise ValueError("its classes are out of range")

    @property
    def drawn(self) -> tuple[int, ...]:
        """The classes that the generator can draw."""
        return tuple(range(self.num_classes)) if self.classes is None else self.classes

    def to_json(self) -> str:
        """The card of a generator of all classes has no entry `classes`, so that its bytes are those of version 1."""
        raw = asdict(self)
        if self.classes is None:
            del raw["classes"]
        return json.dumps({"version": 1 if self.classes is None else CARD_VERSION, **raw}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> GeneratorCard:
        """The card in the text. Raises ValueError, KeyError, TypeError or OverflowError if there is none."""
        raw = parse_object(text)
        if raw.pop("version") > CARD_VERSION:
            raise ValueError("it is newer than this package: update the package")
        raw["image_shape"] = tuple(int(n) for n in raw["image_shape"])
        raw["mean"], raw["std"] = (tuple(float(v) for v in raw[name]) for name in ("mean", "std"))
        if raw.get("classes") is not None:
            raw["classes"] = tuple(int(c) for c in raw["classes"])
        return cls(**raw)


class ClassGenerator(nn.Module):
    """Noise (N, Z) and classes (N,) to images (N, C, H, W) in normalised pixels, inside the range of real pixels.

    A linear layer maps noise and class to a small map of at most 8x8, which is doubled and convolved until it has half
    of the image's sides. So the number of doublings follows the image: 1 for 28 px, 4 for 224 px, 5 for 384 px. The
    last convolution gives four pixels per place (sub-pixel convolution, Shi et al. 2016), so that no wide layer works
    at full size. A sigmoid keeps every pixel in [0, 1].

    The class is a one-hot vector, or from 65 classes on a learnt embedding of the noise's length, so that the linear
    layer does not grow with the classes. Both have entries only for the classes of the card, so that no other class can
    be drawn.
    """

    mean: Tensor
    std: Tensor
    places: Tensor  # (K,): the input of each class; -1 for a class without one

    def __init__(self, card: GeneratorCard) -> None:
        super().__init__()
        self.card = card
        colours, height, across = card.image_shape
        rows, columns, doublings = -(-height // 2), -(-across // 2), 0
        while max(rows, columns) > SMALLEST_SIDE:
            rows, columns, doublings = -(-rows // 2), -(-columns // 2), doublings + 1
        width = card.channels
        embedded = len(card.drawn) > MOST_ONE_HOT
        self.embedding = nn.Embedding(len(card.drawn), card.z) if embedded else None
        layers: list[nn.Module] = [
            nn.Linear(card.z + (card.z if embedded else len(card.drawn)), width * rows * columns),
            nn.Unflatten(1, (width, rows, columns)),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
        ]
        for doubling in range(doublings):
            after = width if doubling < 2 else max(8, width // 2)
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, after, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
            width = after
        self.net = nn.Sequential(*layers, nn.Conv2d(width, 4 * colours, 3, padding=1), nn.PixelShuffle(2))
        self.register_buffer("mean", torch.tensor(card.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(card.std).view(1, -1, 1, 1), persistent=False)
        places = torch.full((card.num_classes,), -1)
        places[list(card.drawn)] = torch.arange(len(card.drawn))
        self.register_buffer("places", places, persistent=False)

    @classmethod
    def untrained(cls, card: GeneratorCard, seed: int) -> ClassGenerator:
        """A newly initialised network. The weights depend on the card and the seed only."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(card)

    def forward(self, z: Tensor, labels_B: Tensor) -> Tensor:
        places = self.places[labels_B]
        # Only the processor looks: on a GPU it would wait for each batch.
        if self.card.classes is not None and places.device.type == "cpu" and (places < 0).any():
            raise ValueError(f"this generator draws only the classes {class_list(self.card.drawn)}")
        x = self.net(torch.cat([z, self.class_vectors(places).to(z.dtype)], dim=1))
        x_unit = torch.sigmoid(middle(x, self.card.image_shape[1:]).float())
        return (x_unit - self.mean) / self.std

    def class_vectors(self, places: Tensor) -> Tensor:
        """What the network is given of the classes, as long as its noise on average: one-hot vectors or embeddings."""
        if self.embedding is not None:
            return self.embedding(places)
        return F.one_hot(places, len(self.card.drawn)) * self.card.z**0.5


def generator_bytes(network: ClassGenerator) -> bytes:
    """The checkpoint file of the generator."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return save_tensors(tensors, metadata={CARD_KEY: network.card.to_json()})


def parse_generator(data: bytes, name: str) -> ClassGenerator:
    """The generator in a checkpoint's bytes, frozen, on the CPU. Errors call the checkpoint `name`.

    Raises:
        UserError: the bytes are not a generator, or damaged. A file from elsewhere may be hostile, so everything is
        checked.
    """
    again = "make it again with 'synth generate --method generator'"
    try:
        card = GeneratorCard.from_json(card_text(data, CARD_KEY, LARGEST_HEADER))
        tensors = load_tensors(data)
        with torch.device("meta"):
            expected = {key: value.shape for key, value in ClassGenerator(card).state_dict().items()}
    except (EOFError, ValueError, KeyError, TypeError, OverflowError, RecursionError, SafetensorError) as error:
        raise UserError(f"{name} is not a generator's checkpoint ({str(error)[:200]}): {again}") from error
    if {key: value.shape for key, value in tensors.items()} != expected:
        raise UserError(f"{name} holds other weights than its card says: {again}")
    if not all(torch.isfinite(value).all() for value in tensors.values() if value.is_floating_point()):
        raise UserError(f"{name} holds NaN or infinite weights: {again}")
    network = ClassGenerator(card)
    network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def read_generator(
    data: bytes,
    name: str,
    teacher_sha256: str | None,
    teacher: ModelCard,
    student_sha256: str | None,
    classes: Iterable[int] | None = None,
) -> ClassGenerator:
    """`parse_generator`, for this teacher and these classes; None means all of the teacher's.

    Raises UserError where the generator was trained for another teacher, against another student, or for other classes.
    """
    network = parse_generator(data, name)
    card = network.card
    if card.teacher_sha256 != teacher_sha256:
        raise UserError(f"{name} was trained for another teacher: leave out --generator to train one for this teacher")
    wanted = (teacher.input_shape, teacher.num_classes, teacher.mean, teacher.std)
    if (card.image_shape, card.num_classes, card.mean, card.std) != wanted:
        raise UserError(
            f"{name} has another image shape, number of classes or normalisation than its teacher: leave out "
            "--generator to train one for this teacher"
        )
    if student_sha256 is not None and card.student_sha256 != student_sha256:
        raise UserError(f"{name} was not trained against this --student: leave out --student or --generator")
    wanted_classes = range(teacher.num_classes) if classes is None else sorted(set(classes))
    if card.drawn != tuple(wanted_classes):
        raise UserError(
            f"{name} draws the classes {class_list(card.drawn)} and this run makes {class_list(wanted_classes)}: leave "
            "out --generator to train one for these classes, and replace a run that holds it with --overwrite"
        )
    return network


def class_list(classes: Sequence[int]) -> str:
    """The first ten classes, as text."""
    return ", ".join(map(str, classes[:10])) + (", ..." if len(classes) > 10 else "")
