"""How much the images of a run differ from one another: duplicates, and the spread of the teacher's features."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synth.basics.errors import UsageError, UserError
from synth.basics.out_of_memory import by_rows
from synth.basics.tables import table
from synth.checkpoint.classifier import Classifier, rows_at_once, to_unit
from synth.checkpoint.layers import last_linear, watch_features
from synth.shards.index import Index, read_index, read_shards
from synth.shards.store import Store

CLOSE = 0.1  # two images nearer than this share of the mean distance to the nearest neighbour are near-duplicates


@dataclass(frozen=True)
class ClassDiversity:
    """The diversity of one class: its images, exact duplicates and near-duplicates, and the spread of its features.

    `spread` is the root mean square distance of the class's features from their mean, divided by the same distance over
    all classes. It lies between 0 (all images are alike) and about 1 (they differ as much as images of all classes).
    """

    label: int
    images: int
    duplicates: int
    near_duplicates: int
    spread: float


def measure(store: Store, teacher: Classifier, most: int = 10_000) -> list[ClassDiversity]:
    """The diversity of each class, from the first `most` images of a run.

    Raises:
        UsageError: the run was made from another teacher.
        UserError: the run has no image yet; or the teacher has no linear layer, whose inputs are the features.
    """
    if last_linear(teacher.net) is None:
        raise UserError(
            f"images are compared by the inputs of the last linear layer, and {teacher.card.architecture} has no "
            f"linear layer: look at the images with 'synth preview {store}' instead"
        )
    index = read_index(store)
    if index.card.teacher_sha256 != teacher.digest:
        raise UsageError(f"{store} was made from another teacher: name the run's own teacher with --teacher")
    images, labels = first_images(store, index, most)
    if not len(images):
        raise UserError(f"{store} has no published shard yet: wait for the first one")
    return class_diversity(images, labels, features_of(teacher, images))


def first_images(store: Store, index: Index, most: int) -> tuple[Tensor, Tensor]:
    """Up to `most` images, uint8 (N, C, H, W), and classes (N,) of a run, from as few shards as possible."""
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for shard in read_shards(store, index):
        images.append(shard.images)
        labels.append(shard.labels)
        if sum(map(len, labels)) >= most:
            break
    if not images:
        return torch.empty(0), torch.empty(0)
    return torch.from_numpy(np.concatenate(images)[:most]), torch.from_numpy(np.concatenate(labels)[:most])


def features_of(teacher: Classifier, images: Tensor) -> Tensor:
    """The inputs of the teacher's last linear layer, (N, D), float32 on the CPU."""
    with watch_features(teacher.net) as features, torch.no_grad():

        def features_of_rows(rows: Tensor) -> Tensor:
            teacher(to_unit(rows.to(teacher.mean.device)))
            return features[0].float().cpu()

        return by_rows(features_of_rows, rows_at_once(teacher, images, 500), images)


def class_diversity(images: Tensor, labels: Tensor, features: Tensor) -> list[ClassDiversity]:
    """The diversity of each class, from uint8 images (N, C, H, W), classes (N,) and features (N, D)."""
    overall = (features - features.mean(0)).square().sum(1).mean().sqrt()
    found = []
    for label in labels.unique().tolist():
        mine = labels == label
        digests = {hashlib.sha256(image.numpy().tobytes()).digest() for image in images[mine]}
        own = features[mine]
        spread = (own - own.mean(0)).square().sum(1).mean().sqrt() / overall
        nearest = nearest_distance(own, own, itself=True)
        close = 0
        if len(own) > 1:
            close = int((nearest < CLOSE * nearest[nearest.isfinite()].mean()).sum())
        count = int(mine.sum())
        found.append(ClassDiversity(label, count, count - len(digests), close, spread.item()))
    return found


def nearest_distance(features: Tensor, others: Tensor, *, itself: bool = False) -> Tensor:
    """Each feature's distance from the nearest of the others, (N,).

    With `itself` on, its distance from itself is left out.
    """
    neighbour = min(1 + itself, len(others))
    distances = [torch.cdist(part, others).kthvalue(neighbour, dim=1).values for part in features.split(1000)]
    return torch.cat(distances)


def diversity_table(found: list[ClassDiversity], class_names: tuple[str, ...]) -> str:
    """One line per class, for a terminal."""
    rows = [
        [class_names[d.label][:15], f"{d.images:,}", f"{d.duplicates:,}", f"{d.near_duplicates:,}", f"{d.spread:.3f}"]
        for d in found
    ]
    return table(["class", "images", "duplicates", "near-duplicates", "spread"], rows)
