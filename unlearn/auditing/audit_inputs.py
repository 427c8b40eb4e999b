"""What every value of an audit depends on, by name: an interrupted audit goes on only with the same."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth.basics.disk import sha256_of
from unlearn.auditing.bench import Bench
from unlearn.auditing.images import Source
from unlearn.auditing.measures import modules
from unlearn.auditing.record.record import MODEL, ORIGINAL, PUBLIC, RETRAINED


def inputs_of(bench: Bench, device: str, versions: Mapping[str, str]) -> dict[str, Any]:
    """Numbers, text, and the hashes of models, images and the measures' code. The other models follow from these."""
    references = bench.subjects.get(RETRAINED, ())
    return {
        **dataclasses.asdict(bench.settings),
        "forget": list(bench.forget),
        "seed": bench.seed,
        "device": device,
        "teacher": bench.subjects[ORIGINAL][0].digest,
        "student": bench.subjects[MODEL][0].digest,
        **({"public": bench.subjects[PUBLIC][0].digest} if PUBLIC in bench.subjects else {}),
        **{f"reference {number}": model.digest for number, model in enumerate(references, 1)},
        "real images": hash_of_images(bench.real),
        "synthetic images": hash_of_images(bench.synthetic),
        **{f"version of {package}": number for package, number in versions.items()},
        **{f"code of {name}": sha256_of(Path(module.__file__).read_bytes()) for name, module in modules().items()},
    }


def hash_of_images(source: Source | None) -> str | None:
    """The hash of all images and labels of a source. None without a source."""
    if source is None:
        return None
    found = hashlib.sha256()
    for half in (source.fit, source.judge):
        for values in (half.images, half.labels):
            found.update(str(tuple(values.shape)).encode())
            found.update(values.contiguous().numpy().data)
    return found.hexdigest()
