"""A look at a run: its state in words, and its images in a grid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from synth.basics.errors import UserError
from synth.basics.progress import format_seconds
from synth.shards.index import Index, read_index, read_shard
from synth.shards.store import Store

LABEL_WIDTH = 120  # pixels
GAP = 2  # pixels
LARGEST_GRID = 2**27  # pixels, half a gigabyte while it is drawn


def describe(store: Store) -> str:
    """What is published, what is missing, the rate and the time left."""
    index = read_index(store)
    plan = index.card.plan
    there = store.names()
    gone = [entry.name for _, entry in sorted(index.entries.items()) if entry.name not in there]
    lines = [
        f"{store}: {'complete' if index.complete and not gone else 'not complete'}",
        f"  method     {index.card.method}, seed {plan.seed}, teacher {index.card.teacher_sha256[:12]} ({index.card.architecture})",
        f"  published  {len(index.entries)} of {plan.shards} shards, {index.samples:,} of {plan.samples:,} samples",
    ]
    if index.generator_sha256:
        lines.append(f"  generator  {index.generator_sha256[:12]}")
    if "quality_gate" in index.card.settings:
        again, missed = (sum(getattr(e, name) or 0 for e in index.entries.values()) for name in ("again", "missed"))
        lines.append(f"  gate       {again:,} images made again, {missed:,} missed its bounds to the end")
    if gone:
        lines.append(f"  gone       {listed(gone)}: published once; 'synth generate --resume' makes them again")
    missing = (n for n in range(plan.shards) if n not in index.entries)
    first = list(islice(missing, 11))
    if first:
        lines.append(f"  missing    shards {listed(first)}")
        lines.append(f"  rate       {rate_line(store, index)}")
    return "\n".join(lines)


def listed(items: Sequence[object]) -> str:
    """The first ten."""
    return ", ".join(map(str, items[:10])) + (", ..." if len(items) > 10 else "")


def rate_line(store: Store, index: Index) -> str:
    """Images a second between the first and the last publication, as the files' times tell it."""
    names = store.names()
    published = sorted((store.modified(e.name), e.samples) for e in index.entries.values() if e.name in names)
    seconds = published[-1][0] - published[0][0] if len(published) > 1 else 0.0
    if seconds <= 0:
        return "unknown until two shards are published"
    rate = sum(samples for _, samples in published[1:]) / seconds
    left = format_seconds((index.card.plan.samples - index.samples) / rate)
    return f"{rate:,.1f} samples/s, {left} left at that rate, last shard {format_seconds(time.time() - published[-1][0])} ago"


def draw_grid(store: Store, columns: int, out: Path) -> None:
    """Write a PNG with a row for each class that has images: its name, the teacher's mean confidence, and its first images."""
    index = read_index(store)
    rows = first_images(store, index, columns)
    if not rows:
        raise UserError(f"{store} has no published shard yet: wait for the first one")
    cell_h, cell_w = cell_size(index)
    grid = Image.new("RGB", (LABEL_WIDTH + columns * cell_w, len(rows) * cell_h), "white")
    draw = ImageDraw.Draw(grid)
    for row, (label, (images, confidences)) in enumerate(rows.items()):
        name = index.card.class_names[label]
        draw.text((4, row * cell_h + 4), f"{label}  {name[:14]}" if name != str(label) else name, fill="black")
        if confidences:
            draw.text((4, row * cell_h + 20), f"confidence {np.mean(confidences):.2f}", fill="dimgray")
        for column, image in enumerate(images):
            pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
            tile = Image.fromarray(np.ascontiguousarray(pixels)).resize(
                (cell_w - GAP, cell_h - GAP), Image.Resampling.NEAREST
            )
            grid.paste(tile, (LABEL_WIDTH + column * cell_w, row * cell_h))
    try:
        grid.save(out, format="PNG")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error


def cell_size(index: Index) -> tuple[int, int]:
    """Height and width of an image's place in the grid; small images are shown larger."""
    _, height, width = index.card.image_shape
    scale = max(1, 48 // height)
    return height * scale + GAP, width * scale + GAP


def first_images(store: Store, index: Index, count: int) -> dict[int, tuple[list[np.ndarray], list[float]]]:
    """Up to `count` images and confidences of each class that has any, from as few shards as it takes.

    Raises UserError where their grid would be too large.
    """
    classes = index.card.plan.classes
    rows: dict[int, tuple[list[np.ndarray], list[float]]] = {}
    full = 0
    for label, image, confidence in labelled_images(store, index):
        if label not in rows:
            rows[label] = ([], [])
            check_size(index, len(rows), count)
        images, confidences = rows[label]
        if len(images) < count:
            images.append(image.copy())  # its shard needn't stay in memory
            confidences.append(confidence)
            full += len(images) == count
        if full == len(classes):
            break
    return {label: rows[label] for label in classes if label in rows}


def check_size(index: Index, rows: int, columns: int) -> None:
    """Raise UserError where a grid of so many rows and columns would be too large."""
    cell_h, cell_w = cell_size(index)
    if rows * cell_h * (LABEL_WIDTH + columns * cell_w) <= LARGEST_GRID:
        return
    fitting = (LARGEST_GRID // (len(index.card.plan.classes) * cell_h) - LABEL_WIDTH) // cell_w
    cure = f"give --columns {fitting}" if fitting > 0 else "look at a run of fewer classes ('synth generate --classes')"
    raise UserError(
        f"a grid of {columns} images each of {len(index.card.plan.classes):,} classes takes more than {LARGEST_GRID:,} pixels: {cure}"
    )


def labelled_images(store: Store, index: Index) -> Iterator[tuple[int, np.ndarray, float]]:
    for number in sorted(index.entries):
        samples = read_shard(store, index, index.entries[number])
        for label, image, record in zip(samples.labels.tolist(), samples.images, samples.records, strict=True):
            if "share" not in record:  # blends are not shown
                yield label, image, float(record["confidence"])
