"""How often networks name the images of a run by their class: other networks, and the teacher on copies of the images.

The teacher is sure of what was made for it, even of noise. A network that took no part in the synthesis judges without
any data whether an image shows its class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from synth.basics.errors import UsageError, UserError
from synth.basics.out_of_memory import by_rows
from synth.basics.progress import Progress
from synth.checkpoint.card import ModelCard
from synth.checkpoint.class_matching import matching_classes
from synth.checkpoint.classifier import Classifier, predict, to_unit
from synth.checkpoint.file import load_checkpoint
from synth.making.copies import COPIES, JUDGED, LUMA, counted, luminance, recognised, resized
from synth.run.recognition import ByNetwork, ByTeacher, Recognition
from synth.shards.index import Index, read_index, read_shards
from synth.shards.store import Store

PART = 200  # images between two looks at the progress
TOP = 5


@dataclass(frozen=True, kw_only=True)
class Question:
    """Who names the images, and how many of them. Raises UsageError if nobody does."""

    by: Sequence[Path] = ()
    teacher: Path | None = None
    images: int = 2000
    equal_indices: bool = False
    trusted_architecture: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.by and self.teacher is None:
            raise UsageError("nobody is asked: name another network with --by, or the run's teacher with --teacher")


@dataclass(frozen=True)
class Network:
    """A network that names the images, and the number of each class of the run in it."""

    path: Path
    model: Classifier
    numbers: Mapping[int, int]


def recognise(store: Store, question: Question) -> Recognition:
    """Let the networks name the first images of a run, which may still grow.

    Raises:
        UsageError: a network has no class in common with the run, or is its teacher; the teacher is not the run's.
        UserError: there is no run, it has no image yet, or a file cannot be read.
    """
    index = read_index(store)
    if index.card.target is not None:
        raise UsageError(f"{store} is of a regressor, whose images have no class to recognise: use 'synth preview'")
    teacher = teacher_of(store, index, question)
    networks = [network_of(path, index, question) for path in question.by]
    labels: list[Tensor] = []
    seen: list[list[Tensor]] = [[] for _ in networks]
    copies: list[dict[str, Tensor]] = []
    for images, classes in parts(store, index, question.images):
        labels.append(classes)
        for network, found in zip(networks, seen, strict=True):
            found.append(top_hits(network, images, classes))
        if teacher:
            copies.append(teacher_hits(teacher, images, classes))
    if not labels:
        raise UserError(f"{store} has no published shard yet: wait for the first one")
    return Recognition(
        run=str(store),
        complete=index.complete,
        class_names=index.card.class_names,
        labels=torch.cat(labels).numpy(),
        networks=tuple(by_network(network, torch.cat(hits)) for network, hits in zip(networks, seen, strict=True)),
        teacher=by_teacher(question.teacher, copies, index.card.image_shape[0]) if question.teacher else None,
    )


def teacher_of(store: Store, index: Index, question: Question) -> Classifier | None:
    """The run's teacher, if it is asked. Raises UsageError if the file is another network."""
    if question.teacher is None:
        return None
    teacher = load_checkpoint(question.teacher, question.trusted_architecture)
    if teacher.digest != index.card.teacher_sha256:
        raise UsageError(
            f"{store} was made from another teacher than {question.teacher}: name the run's own teacher with "
            "--teacher, or ask this network with --by"
        )
    return teacher.to(question.device)


def network_of(path: Path, index: Index, question: Question) -> Network:
    """Another network, and which classes it knows. Raises UsageError if it cannot judge the run's images."""
    model = load_checkpoint(path, question.trusted_architecture)
    if model.digest == index.card.teacher_sha256:
        raise UsageError(
            f"{path} is the run's own teacher, which recognises what was made for it: give it as --teacher, and "
            "another network as --by"
        )
    numbers = matching_classes(index.card.class_names, model.card.class_names, str(path), question.equal_indices)
    never_seen = model.card.training.get("without")  # a reference has an output for the classes that it never saw
    if isinstance(never_seen, list):
        numbers = {ours: theirs for ours, theirs in numbers.items() if theirs not in never_seen}
    if not set(numbers) & set(index.card.plan.classes):
        raise UsageError(f"{path} knows none of the classes that the run has images of: name another network")
    check_channels(path, index.card.image_shape[0], model.card)
    return Network(path, model.to(question.device), numbers)


def check_channels(path: Path, ours: int, card: ModelCard) -> None:
    """Raise UsageError if the network takes images that are neither grey nor colour ones, unlike the run's."""
    theirs = card.input_shape[0]
    if theirs != ours and {ours, theirs} != {1, len(LUMA)}:
        raise UsageError(
            f"{path} takes images of {theirs} channels, and the run's have {ours}: name a network for grey or colour "
            "images"
        )


def parts(store: Store, index: Index, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first `most` images, uint8 (N, C, H, W), and their classes, in parts. Shows the progress."""
    there = sum(len(index.card.plan.job(number).labels) for number in index.entries)
    left = min(most, there)
    with closing(Progress(left, unit="images")) as progress:
        for shard in read_shards(store, index):
            for start in range(0, min(left, len(shard)), PART):
                rows = slice(start, min(start + PART, left))
                yield torch.from_numpy(shard.images[rows]), torch.from_numpy(shard.labels[rows])
                progress.advance(len(shard.labels[rows]))
            left -= min(left, len(shard))
            if not left:
                return


def seen_by(images: Tensor, card: ModelCard) -> Tensor:
    """Images as the network takes them: floats in [0, 1] of its size and channels, from uint8 (N, C, H, W)."""
    x_unit = to_unit(images)
    channels, height, width = card.input_shape
    if channels != x_unit.shape[1]:
        x_unit = luminance(x_unit) if channels == 1 else x_unit.expand(-1, channels, -1, -1)
    return resized(x_unit, (height, width)).clamp(0, 1)


def top_hits(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """Whether the network's first answer, and one of its first five, is the image's class: (N, 2), NaN if it has none.

    A network of at most five classes has no second value.
    """
    model = network.model
    top = min(TOP, model.card.num_classes)
    answers = by_rows(lambda rows: predict(model, seen_by(rows, model.card)).topk(top, dim=1).indices, JUDGED, images)
    known = torch.tensor([label in network.numbers for label in labels.tolist()])
    wanted = torch.tensor([network.numbers.get(label, -1) for label in labels.tolist()])
    right = answers == wanted[:, None]
    hits = torch.stack([right[:, 0], right.any(1)], dim=1).double()
    hits[~known] = torch.nan
    return hits


def by_network(network: Network, hits: Tensor) -> ByNetwork:
    card = network.model.card
    return ByNetwork(
        path=str(network.path),
        sha256=network.model.digest or "",
        architecture=card.architecture,
        classes=len(network.numbers),
        top1=hits[:, 0].numpy(),
        top5=hits[:, 1].numpy() if card.num_classes > TOP else None,
    )


def teacher_hits(teacher: Classifier, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Whether the teacher recognises each image (`image`) and each copy of it, (N,)."""
    plain = by_rows(partial(predict, teacher), JUDGED, images).argmax(1) == labels
    return {"image": plain, **recognised(teacher, images, labels, tuple(COPIES))}


def by_teacher(path: Path, hits: Sequence[Mapping[str, Tensor]], channels: int) -> ByTeacher:
    joined = {name: torch.cat([part[name] for part in hits]).double().numpy() for name in hits[0]}
    image = joined.pop("image")
    return ByTeacher(str(path), image, joined, counted(channels))
