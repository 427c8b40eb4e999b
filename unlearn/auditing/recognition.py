"""Whether the images of the audit's shards are recognised: by the original on changed copies, and by the references.

The student learnt from such images. The original is always sure of them, because they were made so; the references took
no part in the synthesis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from synth.basics.out_of_memory import by_rows
from synth.checkpoint.classifier import Classifier, predict
from synth.making.copies import COPIES, JUDGED, counted, recognised
from synth.run.diversity import first_images
from synth.shards.index import read_index
from synth.shards.store import Store
from unlearn.auditing.record.record import ORIGINAL, RETRAINED

MOST = 200  # images


def recognition_of_shards(
    store: Store, subjects: Mapping[str, Sequence[Classifier]], forget: tuple[int, ...]
) -> dict[str, Any]:
    """The record's `recognition`: shares of the run's first images in per cent. References judge the retain classes."""
    index = read_index(store)
    images, labels = first_images(store, index, MOST)
    original = subjects[ORIGINAL][0]
    votes = {"image": called(original, images) == labels, **recognised(original, images, labels, tuple(COPIES))}
    retain = ~torch.isin(labels, torch.tensor(forget))
    seen = [called(model, images[retain]) == labels[retain] for model in subjects.get(RETRAINED, ())]
    return {
        "images": len(labels),
        "original": {name: per_cent(right) for name, right in votes.items()},
        "counted": list(counted(index.card.image_shape[0])),
        "retain_images": int(retain.sum()),
        "references": [per_cent(right) for right in seen] if retain.any() else [],
    }


def called(model: Classifier, images: Tensor) -> Tensor:
    return by_rows(partial(predict, model), JUDGED, images).argmax(1)


def per_cent(right: Tensor) -> float:
    return round(100 * right.double().mean().item(), 4)
