"""Samples as a student gets them: images with their partners and recipes, from which the views are composed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from synth.shards.views import compose


@dataclass(frozen=True)
class Batch:
    """B samples. Each is a view of an image, or the image as it is, with the teacher's answer on just these pixels."""

    own: Tensor  # uint8 (B, C, H, W): the images
    partners: Tensor  # uint8 (B, C, H, W): the images that the views mix in
    recipes: Tensor  # int32 (B, COLUMNS), of the views; on the CPU
    labels: Tensor  # int64 (B,): the classes of the images
    logits: Tensor  # float32 (B, K): the teacher's
    ids: Tensor  # int64 (B,): a number for each image, the same whenever the image comes

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def views(self) -> Tensor:
        """The pixels that the student learns, uint8 (B, C, H, W), composed on the device of the images."""
        return compose(self.own, self.partners, self.recipes)

    def to(self, device: str) -> Batch:
        """The batch on the device. A GPU copies from pinned memory while it computes."""
        if torch.device(device).type == "cpu":
            return self
        moved = [on_device(v, device) for v in (self.own, self.partners, self.labels, self.logits, self.ids)]
        return Batch(moved[0], moved[1], self.recipes, *moved[2:])


def on_device(values: Tensor, device: str) -> Tensor:
    if torch.device(device).type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


def joined(parts: Sequence[Batch]) -> Batch:
    if len(parts) == 1:
        return parts[0]
    return Batch(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Batch)))
