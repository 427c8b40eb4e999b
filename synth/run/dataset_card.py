"""The dataset card of a run: a README.md for the Hugging Face Hub, beside the shards or elsewhere.

A card beside the shards belongs to the run: `--overwrite` removes it, because it would describe the shards that were
there before. A README.md without the card's mark is somebody's own, and is never replaced or removed.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from synth.basics.errors import UsageError, UserError
from synth.basics.markdown import escaped, rendered
from synth.basics.progress import counted
from synth.shards.index import Index, read_index
from synth.shards.store import Folder, Store

CARD = "README.md"
MARK = "<!-- Written by 'synth card', which replaces this file. Remove this line to keep the file. -->"
LARGEST_CARD = 2**26  # bytes; 100,000 classes with long names
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
LARGER = "n>10M"


def write_card(store: Store, out: Path | None = None) -> str:
    """Write the card of the run in `store`, to `out` or beside the shards, and return its place.

    Raises:
        UserError: there is no run, or the run is not complete, or the card cannot be written.
        UsageError: there is a file at that place that is no such card.
    """
    index = read_index(store)
    if not index.complete:
        raise UserError(
            f"{store} is not complete: finish it with the run's own 'synth generate' options and --resume, "
            "and then write the card"
        )
    place, name = (store, CARD) if out is None else (Folder(out.parent), out.name)
    where = str(out or f"{store}/{CARD}")
    if has_card(place, name) is False:
        raise UsageError(f"{where} was not written by 'synth card': name another file with -o")
    place.write(name, dataset_card(index).encode())
    return where


def has_card(store: Store, name: str = CARD) -> bool | None:
    """Whether the file is a card of this module; None if there is no file."""
    try:
        return MARK.encode() in store.read(name, LARGEST_CARD)
    except FileNotFoundError:
        return None


def dataset_card(index: Index) -> str:
    """The card as Markdown with the header that Hugging Face reads."""
    card, plan = index.card, index.card.plan
    classes = counted(len(plan.classes), "class", "es")
    return rendered(
        "synth.run",
        "dataset_card.md.j2",
        title=json.dumps(f"Synthetic images of {classes}, generated from {card.architecture}"),
        size_category=next((words for bound, words in SIZES if plan.images < bound), LARGER),
        mark=MARK,
        classes_in_words=classes,
        target=escaped(card.target.words) if card.target else "",
        facts=facts(index),
        per_class=per_class(index),
        classes=class_lines(index),
        views=plan.views,
        image_format=plan.image_format,
        shards=f"{{000000..{plan.shards - 1:06d}}}" if plan.shards > 1 else "000000",
        mean=list(card.mean),
        std=list(card.std),
        settings=as_code(card.settings),
    )


def facts(index: Index) -> list[tuple[str, str]]:
    """What the index states about the run as a whole."""
    card, plan = index.card, index.card.plan
    channels, height, width = card.image_shape
    found = {
        "classifier": f"{escaped(card.architecture)}, sha256 {card.teacher_sha256}",
        "method": escaped(card.method),
        "random seed": str(plan.seed),
        "images": f"{plan.images:,} of {height} x {width} pixels, {'RGB' if channels == 3 else 'grey'}",
        "views": f"{counted(plan.views, 'view')} of each image, as recipes",
        "shards": f"{plan.shards:,}, {sum(entry.size for entry in index.entries.values()):,} bytes",
        "made on": escaped(", ".join([card.device, *(f"{name} {of}" for name, of in sorted(card.versions.items()))])),
    }
    right, judged = index.judged
    if judged:
        found["recognised"] = f"{right / judged:.0%} of {judged:,} changed copies of the images, by the classifier"
    if index.generator_sha256:
        found["generator"] = f"generator.safetensors, sha256 {index.generator_sha256}"
    return list(found.items())


def per_class(index: Index) -> str:
    """The number of images per class, which is the same for every class."""
    counts: Counter[int] = Counter()
    for entry in index.entries.values():
        counts.update(entry.class_counts)
    fewest, most = min(counts.values()), max(counts.values())
    number = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return (
        f"{number} images per class. The classifier has {index.card.num_classes:,} classes; these are in the data set:"
    )


def class_lines(index: Index) -> list[str]:
    """A Markdown list of the run's classes with their numbers."""
    return [f"- {number}: {escaped(index.card.class_names[number])}" for number in sorted(index.card.plan.classes)]


def as_code(content: object) -> str:
    """JSON as a block of code. Its lines are indented, so that no text in it can end the block."""
    lines = json.dumps(content, indent=2, sort_keys=True).splitlines()
    return "\n".join(f"    {line}" for line in lines)
