"""What a card records about the file that a network was imported from, so that a network can go back into its form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from synth.checkpoint.importing.matching import Match
from synth.checkpoint.importing.weights_file import WeightsFile


def origin_of(
    file: WeightsFile,
    entry: str,
    match: Match,
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    builder: str,
) -> dict[str, Any]:
    """The record. `found` are the tensors of the entry, and `expected` those of the network.

    Entries: `file` (its name without folders) and its `sha256`; `entry`, the dotted name of the state dict in it, ""
    for the file itself; `prefix` of the keys that were taken; `renamed`, the file's key for each of the network's keys
    that differs by more than the prefix; `dtype`, the usual floating dtype in the file, and `dtypes` of the file's keys
    with another dtype than that or, for whole numbers, than the network's; `dropped`, keys of the entry that were left
    out; `filled`, counters that the file lacks; `builder`, the architecture.
    """
    floats = Counter(dtype_name(found[key]) for key in match.keys.values() if found[key].is_floating_point())
    usual = floats.most_common(1)[0][0] if floats else "float32"
    dtypes = {
        theirs: dtype_name(found[theirs])
        for ours, theirs in match.keys.items()
        if dtype_name(found[theirs]) != (usual if expected[ours].is_floating_point() else dtype_name(expected[ours]))
    }
    return {
        "file": file.path.name,
        "sha256": file.sha256,
        "entry": entry,
        "prefix": match.prefix,
        "renamed": {ours: theirs for ours, theirs in match.keys.items() if theirs != match.prefix + ours},
        "dtype": usual,
        "dtypes": dtypes,
        "dropped": list(match.dropped),
        "filled": [key for key in expected if key not in match.keys],
        "builder": builder,
    }


def dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
