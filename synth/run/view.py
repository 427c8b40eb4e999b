"""Views of a run: its state in words, and its images in a grid."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from synth.basics.byte_sizes import format_bytes
from synth.basics.disk import prepare_output, write_file
from synth.basics.errors import UsageError, UserError
from synth.basics.grids import GAP, PNG, Row, Text, draw_rows, png_bytes, row_height
from synth.basics.image_files import UnreadableImageError, decode_image
from synth.basics.progress import counted, format_seconds, progress_line
from synth.checkpoint.class_choice import Classes
from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.masses import median
from synth.checkpoint.range_choice import choose, words_for
from synth.making.copies import recognised
from synth.run.lock import LOCK
from synth.run.sizes import whole_size
from synth.run.working import PICTURE, Work, picture_in, work_in
from synth.shards.index import Index, read_index, read_shards
from synth.shards.plan import Plan
from synth.shards.store import Store

LABEL_WIDTH = 120  # pixels
SMALLEST_TILE = 48  # pixels of an image's height in the grid
LARGEST_GRID = 2**27  # pixels, half a gigabyte while it is drawn


def describe(store: Store) -> str:
    """A run in words: what is published, what is missing, the rate and the time left.

    Takes one listing of the store.
    """
    index = read_index(store)
    plan = index.card.plan
    times = store.modified()
    gone = [entry.name for _, entry in sorted(index.entries.items()) if entry.name not in times]
    lines = [
        f"{store}: {'complete' if index.complete and not gone else 'not complete'}",
        f"  method     {index.card.method}, seed {plan.seed}, teacher {index.card.teacher_sha256[:12]} "
        f"({index.card.architecture})",
        *([f"  target     {index.card.target.words}, {plan.per_class:,} images per bin"] if index.card.target else []),
        f"  published  {len(index.entries)} of {plan.shards} shards, {index.samples:,} of {plan.images:,} images, "
        f"{size_line(index)}",
    ]
    if index.generator_sha256:
        lines.append(f"  generator  {index.generator_sha256[:12]}")
    if "quality_gate" in index.card.settings:
        again = sum(entry.counts.again or 0 for entry in index.entries.values())
        missed = sum(entry.counts.missed or 0 for entry in index.entries.values())
        lines.append(f"  gate       {again:,} images generated again, {missed:,} missed the bounds in every try")
    right, judged = index.judged
    if judged:
        lines.append(
            f"  recognised {right / judged:.0%} of {judged:,} changed copies of the images, by the teacher; "
            "'synth recognise' asks other networks"
        )
    if gone:
        lines.append(
            f"  gone       {listed(gone)}: published before, but not there now; 'synth generate --resume' makes them "
            "again"
        )
    missing = (number for number in range(plan.shards) if number not in index.entries)
    first = list(islice(missing, 11))
    if first:
        lines.append(f"  missing    shards {listed(first)}")
        work = work_in(store) if LOCK in times else None
        if work:
            lines.append(f"  in work    {work_line(work, plan, times[LOCK])}")
        else:
            lines.append(f"  rate       {rate_line(index, times)}")
    return "\n".join(lines)


def work_line(work: Work, plan: Plan, time_of_lock: float) -> str:
    """What the process that makes the run said last, and when."""
    shards = f"{counted(work.shards, 'shard')}; " if work.shards else ""
    line = progress_line(min(work.images, plan.images), plan.images, work.per_second, "images")
    return f"{shards}{line} ({format_seconds(max(0.0, time.time() - time_of_lock))} ago)"


def size_line(index: Index) -> str:
    """The bytes that are published, and those of the whole run by the same mean."""
    size = sum(entry.size for entry in index.entries.values())
    if index.complete:
        return format_bytes(size)
    whole = whole_size(index.card.layout, index.card.plan.images, index.entries.values())
    return f"{format_bytes(size)} of about {format_bytes(whole)}"


def listed(items: Sequence[object]) -> str:
    """The first ten items in words."""
    return ", ".join(map(str, items[:10])) + (", ..." if len(items) > 10 else "")


def rate_line(index: Index, times: Mapping[str, float]) -> str:
    """The images per second between the first and the last publication, by the times of the shards' files."""
    published = sorted((times[entry.name], entry.samples) for entry in index.entries.values() if entry.name in times)
    seconds = published[-1][0] - published[0][0] if len(published) > 1 else 0.0
    if seconds <= 0:
        return "unknown until two shards are published"
    rate = sum(samples for _, samples in published[1:]) / seconds
    left = format_seconds((index.card.plan.images - index.samples) / rate)
    ago = format_seconds(time.time() - published[-1][0])
    return f"{rate:,.1f} images/s, {left} left at that rate, last shard {ago} ago"


def draw_grid(store: Store, columns: int, out: Path, classes: Classes = (), teacher: Classifier | None = None) -> str:
    """Write a PNG with one row per class: the class's name and its first images. A regressor's rows are the bins of its
    target, in ascending order.

    Classes without images have no row. Before the first shard is published, the PNG shows images in work.
    With the teacher, below each image stands how many of its changed copies (synth/making/copies.py) the teacher calls
    by the class, and below a class's name the share of all of them. A regressor's prediction stands there instead.

    Args:
        classes: the classes to draw; all of the run if there are none.
        teacher: the run's own.

    Returns:
        A line for a person.

    Raises:
        UsageError: the run has no such class, or another teacher; or there is a file that is no PNG.
        UserError: there is no image, or the PNG cannot be written.
    """
    index = read_index(store)
    prepare_output(out, PNG, "a PNG image")
    if teacher and teacher.digest != index.card.teacher_sha256:
        raise UsageError(f"{store} was made from another teacher: name the run's own teacher with --teacher")
    rows = images_per_class(store, index, columns, classes_of_run(index, classes))
    if not rows:
        return draw_work(store, out)
    drawn = [row_of(label, images, index, teacher) for label, images in rows.items()]
    write_file(out, png_bytes(draw_rows(drawn, columns, *tile_size(index), LABEL_WIDTH)))
    return f"wrote {out}"


def draw_work(store: Store, out: Path) -> str:
    """Write a PNG of images of the first shard, which is still in work. Returns a line for a person.

    Raises UserError if there is no picture of it yet.
    """
    picture = picture_in(store)
    if picture is None:
        raise UserError(
            f"{store} has no published shard and no picture of the first one yet: wait some ten seconds of its work"
        )
    try:
        image = decode_image(picture, ("JPEG",))
    except UnreadableImageError as error:
        raise UserError(
            f"{store}/{PICTURE} cannot be drawn ({error}): wait for the next one, a minute later"
        ) from error
    write_file(out, png_bytes(image))
    return f"wrote {out}: no shard is published yet, so it shows images of the first one in work"


def row_of(label: int, images: list[np.ndarray], index: Index, teacher: Classifier | None) -> Row:
    """A class's row of the grid."""
    name = index.card.class_names[label]
    numbered = name != str(label) and index.card.target is None
    texts = [Text(4, 4, f"{label}  {name[:14]}" if numbered else name)]
    if teacher is None:
        return Row(images, texts)
    if index.card.target is not None:
        predicted = median(predict(teacher, torch.from_numpy(np.stack(images))), index.card.target)
        return Row(images, texts, [f"{value:.4g}" for value in predicted.tolist()])
    votes = recognised(teacher, torch.from_numpy(np.stack(images)), torch.full((len(images),), label))
    right = torch.stack(list(votes.values())).sum(0).tolist()
    texts.append(Text(4, 20, f"recognised {sum(right) / (len(right) * len(votes)):.0%}", "dimgray"))
    return Row(images, texts, [f"{n} of {len(votes)}" for n in right])


def classes_of_run(index: Index, asked: Classes) -> tuple[int, ...]:
    """The numbers of the classes, all of the run's if none are asked for."""
    there = index.card.plan.classes
    if not asked:
        return there
    chosen = choose(asked, index.card, owner="the run's teacher")
    if missing := set(chosen).difference(there):
        raise UsageError(
            f"the run has no images of {words_for(sorted(missing), index.card)}: it has those of "
            f"{words_for(there, index.card)}"
        )
    return chosen


def tile_size(index: Index) -> tuple[int, int]:
    """Height and width in pixels of an image in the grid. Small images are enlarged."""
    _, height, width = index.card.image_shape
    scale = max(1, -(-SMALLEST_TILE // height))
    return height * scale, width * scale


def images_per_class(
    store: Store, index: Index, count: int, chosen: tuple[int, ...] | None = None
) -> dict[int, list[np.ndarray]]:
    """Up to `count` images per class, by class, from as few shards as possible.

    `chosen` are the classes; None means all of the run, in its order.

    Classes without images are left out. Raises UserError if the grid would be too large.
    """
    classes = index.card.plan.classes if chosen is None else chosen
    rows: dict[int, list[np.ndarray]] = {}
    full = 0
    for label, image in labelled_images(store, index):
        if label not in classes:
            continue
        if label not in rows:
            rows[label] = []
            check_size(index, len(rows), count, len(classes))
        if len(rows[label]) < count:
            rows[label].append(image.copy())  # so that its shard does not stay in memory
            full += len(rows[label]) == count
        if full == len(classes):
            break
    return {label: rows[label] for label in classes if label in rows}


def check_size(index: Index, rows: int, columns: int, classes: int) -> None:
    """Raise UserError if a grid with this number of rows and columns would be too large."""
    height, width = tile_size(index)
    cell_h, cell_w = row_height(height, words=True), width + GAP
    if rows * cell_h * (LABEL_WIDTH + columns * cell_w) <= LARGEST_GRID:
        return
    fitting = (LARGEST_GRID // (classes * cell_h) - LABEL_WIDTH) // cell_w
    cure = f"give --columns {fitting}" if fitting > 0 else "view fewer classes (--classes)"
    raise UserError(
        f"a grid of {columns} images for each of {classes:,} classes has more than {LARGEST_GRID:,} pixels: {cure}"
    )


def labelled_images(store: Store, index: Index) -> Iterator[tuple[int, np.ndarray]]:
    """Each image of the run with its class."""
    for shard in read_shards(store, index):
        yield from zip(shard.labels.tolist(), shard.images, strict=True)
