"""Which of a data set's files belong to a split, by their names: `test-00000.tar`, `train/0000.parquet`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from synth.basics.errors import UserError
from unlearn.data_sets.reading.found import SPLITS


def files_of_split(files: Sequence[Path], folder: Path, split: str) -> list[Path]:
    """The files whose names have one of the split's names, in the order of the alphabet.

    If no file names a split, all are test images. Raises UserError if none is left.
    """
    words = {path: set(re.split(r"[^a-z0-9]+", str(path.relative_to(folder)).lower())) for path in sorted(files)}
    for name in SPLITS[split]:
        if chosen := [path for path, found in words.items() if name in found]:
            return chosen
    named = {name for names in SPLITS.values() for name in names}
    if split == "test" and not any(found & named for found in words.values()):
        return list(words)
    raise UserError(
        f"{folder} has no {split} images: give the files a name with {' or '.join(SPLITS[split])} in it, "
        f"such as {split}-00000{files[0].suffix}"
    )
