"""The images that an audit looks at, and the ledger of the real ones among them.

Rows are chosen here once, from the seed, and written to the ledger as they are chosen. No measure can reach other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.masses import median, near
from synth.shards.index import read_index, read_shard
from synth.shards.store import Store
from unlearn.data import LabelledImages
from unlearn.real_images import ranges
from unlearn.samples.filters import is_held_out, view_of

JUDGED_SHARE = 0.5  # share of the shards' images that measures are judged on; attacks learn from the others
ENOUGH = 500  # images per class


@dataclass(frozen=True)
class Source:
    """Images of one kind. Attacks learn from `fit`, every measure is judged on `judge`; the two share no image."""

    kind: str  # real or synthetic
    name: str  # in words, such as "real test images of mnist"
    fit: LabelledImages
    judge: LabelledImages


def real_source(
    name: str, train: LabelledImages, test: LabelledImages, pool: int, rng: torch.Generator
) -> tuple[Source, list[dict[str, Any]]]:
    """Up to `pool` training images per class to learn from, all test images to judge on, and the ledger's lines of
    both.
    """
    fit_rows = rows_per_class(train.labels, pool, rng)
    ledger = [
        entry(name, "train", "relearning, probe, membership inference", fit_rows),
        entry(name, "test", "judging every measure", torch.arange(len(test))),
    ]
    return Source("real", f"real test images of {name}", train.select(fit_rows), test), ledger


def synthetic_source(store: Store, teacher: Classifier) -> Source:
    """Images of the run that the teacher calls by their class, without views, split in two by their numbers.

    A regressor predicts its images to a bin's width.

    Shards are read in order until each of the run's classes has `ENOUGH` images.

    Raises:
        UserError: another teacher made the run, or it has no shard yet.
    """
    index = read_index(store)
    if index.card.teacher_sha256 != teacher.digest:
        raise UserError(f"{store} was made from another teacher: name that teacher with --teacher")
    parts: list[LabelledImages] = []
    judged: list[Tensor] = []
    for number in sorted(index.entries):
        samples = read_shard(store, index, index.entries[number])
        view = view_of(samples, index.card.plan).part(slice(None, None, 1 + index.card.plan.views))  # images only
        target, middles = teacher.card.target, None
        kept = view.logits.argmax(1) == view.labels
        if target is not None:
            middles = torch.tensor(target.centres)[view.labels]
            kept = near(median(view.logits, target), middles, target)
            middles = middles[kept]
        images = torch.from_numpy(samples.images)[kept]
        names = teacher.card.class_names
        parts.append(LabelledImages(images, view.labels[kept], names, natural=False, targets=middles, target=target))
        judged.append(is_held_out(view, JUDGED_SHARE).all(1)[kept])
        labels = torch.cat([part.labels for part in parts])
        if min(int((labels == c).sum()) for c in index.card.plan.classes) >= ENOUGH:
            break
    if not parts:
        raise UserError(f"{store} has no published shard yet: wait for the first one")
    whole, mask = join_images(parts), torch.cat(judged)
    return Source("synthetic", f"synthetic hold-outs from {store}", whole.select(~mask), whole.select(mask))


def join_images(parts: Sequence[LabelledImages]) -> LabelledImages:
    images, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels"))
    targets = None if parts[0].targets is None else torch.cat([part.values for part in parts])
    return replace(parts[0], images=images, labels=labels, targets=targets)


def rows_per_class(labels: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """The rows of up to `count` images per class, drawn by `rng`, in ascending order."""
    chosen = [torch.empty(0, dtype=torch.long)]
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        chosen.append(rows[torch.randperm(len(rows), generator=rng)[:count]])
    return torch.cat(chosen).sort().values


def entry(data: str, split: str, purpose: str, rows: Tensor) -> dict[str, Any]:
    """One line of the ledger."""
    return {"data": data, "split": split, "purpose": purpose, "images": len(rows), "rows": ranges(rows.tolist())}
