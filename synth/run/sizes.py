"""How large a run will be, and how many images its shards get.

The size of a shard follows from the run's images alone, never from the machines: the same request gives the same bytes
on a laptop and on a cluster.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable

from synth.basics.byte_sizes import format_bytes
from synth.basics.errors import UserError
from synth.shards.index import ShardEntry
from synth.shards.plan import JPG, PNG
from synth.shards.samples import END_OF_TAR, LARGEST_SHARD, Layout
from synth.shards.store import Folder, Store
from synth.shards.view_recipes import COLUMNS

BLOCK = 512  # bytes; a tar's header, and what each file is padded to
SMALL_FILES = 2 * 2 * BLOCK  # class and json
NPY_HEADER = 128
# Bytes of a file per value of its pixels. Measured on images of DeepInversion (docs/synthesis.md).
BYTES_PER_VALUE = {PNG: 0.92, JPG: 0.55}
USUAL_SHARD = 1000  # images at most, unless the user asks for another size
LARGEST_USUAL_SHARD = 100_000_000  # bytes
# A run has this number of shards, so that each of several workers gets many of them, but no shard gets smaller for it
# than ten megabytes.
ENOUGH_SHARDS = 200
SMALLEST_USUAL_SHARD = 10_000_000  # bytes


def expected_bytes(layout: Layout) -> int:
    """The bytes of an image in its shard, with the teacher's answers and the recipes of its views."""
    image = BYTES_PER_VALUE[layout.image_format] * math.prod(layout.image_shape)
    answers = NPY_HEADER + 2 * (1 + layout.views) * layout.num_classes
    recipes = NPY_HEADER + 4 * COLUMNS * layout.views
    return SMALL_FILES + sum(BLOCK + BLOCK * math.ceil(content / BLOCK) for content in (image, answers, recipes))


def images_per_shard(layout: Layout, images: int, batch: int, asked: int | None = None) -> int:
    """How many images a shard gets.

    Args:
        images: of the whole run.
        batch: images that the method optimises together. A shard holds whole batches where it can, because a small
            batch has poor statistics.
        asked: bytes of a shard, if the user names a size.
    """
    image, batch = expected_bytes(layout), min(batch, images)
    smallest = SMALLEST_USUAL_SHARD // image
    if asked is not None:
        count = max(1, asked // image)
    elif smallest >= USUAL_SHARD:
        return max(USUAL_SHARD, batch)
    else:
        count = min(LARGEST_USUAL_SHARD // image, max(images // ENOUGH_SHARDS, smallest), USUAL_SHARD)
        count = max(count, batch, 1)
    count = max(1, min(count, most_images(layout)))
    return count if count < batch else count - count % batch


def most_images(layout: Layout) -> int:
    """The images of the largest shard that readers accept; 0 if not even one fits."""
    return (LARGEST_SHARD - END_OF_TAR) // layout.largest_sample


def whole_size(layout: Layout, images: int, published: Iterable[ShardEntry] = ()) -> float:
    """The bytes of a run with this number of images, by the mean of the shards that are published, if there are any."""
    there = list(published)
    if not there:
        return images * expected_bytes(layout)
    return images * sum(entry.size for entry in there) / sum(entry.samples for entry in there)


def refuse_full_disk(store: Store, needed: float, image_format: str, replaces: bool) -> None:
    """Raise UserError if the store is a folder on a disk with less space than the run will need.

    Args:
        needed: bytes that are still to be written.
        replaces: whether the files in the store are removed first.
    """
    free = free_bytes(store)
    if free is None:
        return
    replaced = sum(map(store.size, store.names())) if replaces else 0
    if free + replaced >= needed:
        return
    cures = ["free some space", "choose another --out", "generate fewer images (--per-class)"]
    cures += ["use --image-format jpg"] if image_format == PNG else []
    raise UserError(
        f"{store}: the run will take about {format_bytes(needed)} and the disk has {format_bytes(free)} free: "
        + ", ".join(cures[:-1])
        + f", or {cures[-1]}"
    )


def free_bytes(store: Store) -> int | None:
    """The free bytes of the disk that holds the store; None for object storage."""
    if not isinstance(store, Folder):
        return None
    path = store.path.absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(there).free
