"""A look at a run: its state in words, and its images in a grid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from synth.errors import UserError
from synth.index import Index, read_index, read_shard
from synth.progress import format_seconds
from synth.store import Store

LABEL_WIDTH = 120  # pixels
GAP = 2  # pixels


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
    """Write a PNG with a row for each class: its name, the teacher's mean confidence, and its first images."""
    index = read_index(store)
    rows = first_images(store, index, columns)
    if not any(images for images, _ in rows.values()):
        raise UserError(f"{store} has no published shard yet: wait for the first one")
    channels, height, width = index.card.image_shape
    scale = max(1, 48 // height)
    cell_h, cell_w = height * scale + GAP, width * scale + GAP
    grid = Image.new("RGB", (LABEL_WIDTH + columns * cell_w, len(rows) * cell_h), "white")
    draw = ImageDraw.Draw(grid)
    for row, (label, (images, confidences)) in enumerate(rows.items()):
        name = index.card.class_names[label]
        draw.text((4, row * cell_h + 4), f"{label}  {name[:14]}" if name != str(label) else name, fill="black")
        if confidences:
            draw.text((4, row * cell_h + 20), f"confidence {np.mean(confidences):.2f}", fill="dimgray")
        for column, image in enumerate(images):
            pixels = image[0] if channels == 1 else image.transpose(1, 2, 0)
            tile = Image.fromarray(np.ascontiguousarray(pixels)).resize(
                (width * scale, height * scale), Image.Resampling.NEAREST
            )
            grid.paste(tile, (LABEL_WIDTH + column * cell_w, row * cell_h))
    try:
        grid.save(out, format="PNG")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error


def first_images(store: Store, index: Index, count: int) -> dict[int, tuple[list[np.ndarray], list[float]]]:
    """Up to `count` images and confidences of each class, from as few shards as it takes."""
    rows: dict[int, tuple[list[np.ndarray], list[float]]] = {c: ([], []) for c in index.card.plan.classes}
    for label, image, confidence in labelled_images(store, index):
        images, confidences = rows[label]
        if len(images) < count:
            images.append(image)
            confidences.append(confidence)
        elif all(len(images) >= count for images, _ in rows.values()):
            break
    return rows


def labelled_images(store: Store, index: Index) -> Iterator[tuple[int, np.ndarray, float]]:
    for number in sorted(index.entries):
        samples = read_shard(store, index, index.entries[number])
        for label, image, record in zip(samples.labels.tolist(), samples.images, samples.records, strict=True):
            if "share" not in record:  # blends are not shown
                yield label, image, float(record["confidence"])
