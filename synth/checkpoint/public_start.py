"""Public weights as a start instead of random ones: the usual fine-tuning, with a new last layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from synth.basics.errors import UsageError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint
from synth.checkpoint.layers import last_layer


@dataclass(frozen=True)
class PublicStart:
    """Weights that never saw the images of the teacher. `name` is what errors call their file."""

    model: Classifier
    name: str

    def network(self, card: ModelCard, seed: int, *, new_head: bool = True) -> Classifier:
        """A network for the card with the public weights. Its last layer is random, and depends on the seed only.

        Args:
            new_head: whether the last layer is drawn anew although the public network has as many classes.

        Raises:
            UsageError: the weights do not fit the card's network.
        """
        found = Classifier.untrained(card, seed)
        ours, theirs = found.net.state_dict(), self.model.net.state_dict()
        head = head_keys(found) | head_keys(self.model)
        classes = (card.num_classes, self.model.card.num_classes)
        if not new_head and classes[0] == classes[1]:
            head = set()
        head |= {key for key in ours.keys() & theirs.keys() if by_classes_only(ours[key], theirs[key], classes)}
        self.refuse_other_layers(ours, theirs, head, card)
        found.net.load_state_dict({key: value if key in head else theirs[key] for key, value in ours.items()})
        return found

    def refuse_other_layers(
        self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], head: set[str], card: ModelCard
    ) -> None:
        """Raise UsageError if a layer before the last one has another shape. The first such layer is named."""
        what = f"{self.name} ({self.model.card.architecture}) does not fit {card.architecture} for these images"
        cure = "name public weights of the same architecture, width and number of channels"
        for key in (key for key in [*ours, *theirs] if key not in head):
            layer, _, part = key.rpartition(".")
            if key not in theirs or key not in ours:
                has, lacks = ("the network", "the file") if key in ours else ("the file", "the network")
                raise UsageError(f"{what}: {has} has the layer {layer or key}, {lacks} does not: {cure}")
            if ours[key].shape != theirs[key].shape:
                shapes = [list(state[key].shape) for state in (theirs, ours)]
                raise UsageError(
                    f"{what}: the first layer that differs is {layer or key}, whose {part} has shape {shapes[0]}, not "
                    f"{shapes[1]}: {cure}"
                )

    def refuse_descendant(self, teacher_sha256: str, teacher: Classifier | None = None) -> None:
        """Raise UsageError if the weights are the teacher's or come from them.

        Args:
            teacher: compared weight by weight, if it is at hand. Without it only hashes show the descent.
        """
        cure = "name weights that never saw the teacher's images, such as those that its own training began with"
        if self.model.digest == teacher_sha256:
            raise UsageError(f"{self.name} is the teacher itself, which knows the forget classes: {cure}")
        if teacher_sha256 in ancestors(self.model.card):
            raise UsageError(f"{self.name} descends from the teacher, as its own card says: {cure}")
        if teacher is not None and same_weights(teacher, self.model):
            raise UsageError(f"{self.name} has the teacher's weights in all layers before the last one: {cure}")

    def facts(self) -> dict[str, Any]:
        """What a checkpoint that started here records: the hash of the public file, and of what that came from."""
        return {
            "sha256": self.model.digest,
            "file": Path(self.name).name[:200],
            "architecture": self.model.card.architecture,
            "ancestors": sorted(ancestors(self.model.card)),
        }


def read_public(path: Path, trusted_architecture: str | None = None) -> PublicStart:
    """The public checkpoint in a file. Raises UserError if it cannot be read (`load_checkpoint`)."""
    return PublicStart(load_checkpoint(path, trusted_architecture), str(path))


def ancestors(card: ModelCard) -> set[str]:
    """The hashes of the checkpoints that a network's weights or answers came from, as far as its card names them."""
    training = card.training
    start = training.get("start_from")
    start = start if isinstance(start, Mapping) else {}
    earlier = start.get("ancestors")
    named = [training.get("teacher_sha256"), start.get("sha256"), *(earlier if isinstance(earlier, list) else [])]
    return {name for name in named if isinstance(name, str)}


def head_keys(model: Classifier) -> set[str]:
    """The keys of the last layer in the network's state dict. Raises UserError if there is no such layer."""
    layer = last_layer(model)
    name = next(name for name, module in model.net.named_modules() if module is layer)
    return {f"{name}.{key}" if name else key for key in layer.state_dict()}


def by_classes_only(ours: Tensor, theirs: Tensor, classes: tuple[int, int]) -> bool:
    """Whether two weights differ only in the number of classes, as those of a second head do."""
    if ours.shape == theirs.shape or not ours.dim() or not theirs.dim():
        return False
    return (ours.shape[0], theirs.shape[0]) == classes and ours.shape[1:] == theirs.shape[1:]


def same_weights(one: Classifier, other: Classifier) -> bool:
    """Whether all trained weights before the last layer are equal."""
    ours, theirs = dict(one.net.named_parameters()), dict(other.net.named_parameters())
    head = head_keys(one) | head_keys(other)
    if ours.keys() - head != theirs.keys() - head:
        return False
    return all(torch.equal(ours[key].cpu(), theirs[key].cpu()) for key in ours.keys() - head)
