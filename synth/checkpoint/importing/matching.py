"""Which tensor of a state dict is which weight of a network, whatever wrappers the training put around the network.

Keys are taken as they are first. If they do not fit, the names that wrappers insert are ignored on both sides, so that
a network that has a part called `module` keeps it, and a prefix is looked for that all keys have in common.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# What DataParallel, torch.compile, FSDP and activation checkpoints insert anywhere into a key.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
# What people name the network inside their training class, most usual first.
USUAL_PREFIXES = ("", "model.", "net.", "network.", "backbone.", "encoder.", "classifier.")
COUNTER = "num_batches_tracked"
# Entries that belong to no network: thop's counts, the number of averaged models, and tables that older versions of a
# library saved and newer ones compute.
LEFTOVERS = ("total_ops", "total_params", "n_averaged", "attn_mask", "relative_position_index", "position_ids")

# torchvision's DenseNet had one dot more in its keys (norm.1), and its published weights still have them.
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12](?=\.))")


@dataclass(frozen=True)
class Match:
    """How well a state dict fits a network.

    Attributes:
        keys: the state dict's key for each key of the network that it has.
        prefix: what stands before each of the network's keys in the state dict.
        inserted: names that wrappers inserted elsewhere into the keys.
        missing: keys of the network that the state dict lacks. Counters of batch norm, which torch fills in, are not
            among them.
        unknown: keys with that prefix that the network lacks.
        dropped: keys that are left out: leftovers of tools, and keys without the prefix.
        others: other prefixes whose weights fit as well, such as that of an average.
        added: a prefix that all keys of the network have, and those of the state dict lack.
    """

    keys: Mapping[str, str]
    prefix: str
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    dropped: tuple[str, ...]
    others: tuple[str, ...] = ()
    added: str = ""
    inserted: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return not self.missing and not self.unknown


def is_average(name: str) -> bool:
    """Whether an entry or a prefix is named as an average of the weights over the training (EMA, SWA)."""
    words = name.lower().replace(".", "_").split("_")
    return any(word in ("ema", "swa", "averaged", "shadow") for word in words)


def bare(key: str) -> str:
    """The key without what wrappers insert, in the form of today."""
    kept = ".".join(part for part in key.split(".") if part not in WRAPPERS)
    return OLD_DENSENET.sub(r"\1\2", kept)


def match(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    heads: tuple[str, ...] = (),
    prefix: str | None = None,
) -> Match:
    """The best match of a state dict with the keys of a network.

    Args:
        heads: beginnings of the keys of auxiliary heads, which are dropped.
        prefix: the prefix to take, where the user names one.
    """
    exact = as_they_are(found, expected, heads)
    if prefix is None and exact.fits:
        return exact
    ours = {bare(key): key for key in expected}
    if len(ours) < len(expected):  # the network itself has two parts that differ by such a name only
        ours = {key: key for key in expected}
    theirs = {bare(key): key for key in sorted(found, key=len, reverse=True)}  # the shortest key of a name stays
    best = exact
    for added in common_prefixes(ours):
        inner = {name.removeprefix(added): key for name, key in ours.items()}
        wanted = [name for name in inner if not name.endswith(COUNTER)]
        prefixes = possible_prefixes(wanted, theirs) if prefix is None else [bare_prefix(prefix)]
        counts = {p: sum(p + name in theirs for name in wanted) for p in prefixes}
        fitting = [p for p in prefixes if counts[p] == max(counts.values())]
        if not fitting:
            continue
        taken = replace(with_prefix(fitting[0], found, theirs, inner, heads), others=tuple(fitting[1:]), added=added)
        if len(taken.missing) < len(best.missing) or (taken.fits and not best.fits):
            best = taken
    return best


def common_prefixes(ours: Iterable[str]) -> list[str]:
    """No prefix, and the first part of all keys of the network if they have one in common."""
    firsts = {name.partition(".")[0] for name in ours if "." in name}
    return ["", f"{firsts.pop()}."] if len(firsts) == 1 and all("." in name for name in ours) else [""]


def bare_prefix(prefix: str) -> str:
    """The user's prefix, with a dot at its end, without what wrappers insert."""
    kept = bare(prefix.rstrip("."))
    return f"{kept}." if kept else ""


def as_they_are(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], heads: tuple[str, ...]) -> Match:
    return with_prefix("", found, {key: key for key in found}, {key: key for key in expected}, heads)


def with_prefix(
    prefix: str, found: Mapping[str, Tensor], theirs: Mapping[str, str], ours: Mapping[str, str], heads: tuple[str, ...]
) -> Match:
    keys = {ours[name]: theirs[prefix + name] for name in ours if prefix + name in theirs}
    missing = tuple(key for key in ours.values() if key not in keys and not key.endswith(COUNTER))
    names = {key: name for name, key in theirs.items()}  # keys that another key hides are not in it
    unknown: list[str] = []
    dropped: list[str] = []
    for key in sorted(set(found) - set(keys.values())):
        name = names.get(key, bare(key))
        inside = name.removeprefix(prefix)
        leftover = key.rpartition(".")[2] in LEFTOVERS or (bool(heads) and inside.startswith(heads))
        (dropped if leftover or not name.startswith(prefix) or key not in names else unknown).append(key)
    literal, inserted = as_written(keys, prefix)
    return Match(keys, literal, missing, tuple(unknown), tuple(dropped), inserted=inserted)


def as_written(keys: Mapping[str, str], prefix: str) -> tuple[str, tuple[str, ...]]:
    """The prefix as it stands in the state dict, with its wrappers, and the wrappers that stand elsewhere."""
    written = {theirs.removesuffix(ours) if theirs.endswith(ours) else None for ours, theirs in keys.items()}
    common = written.pop() if len(written) == 1 else None
    if common is not None:
        return common, ()
    parts = {part for ours, theirs in keys.items() for part in theirs.split(".") if part not in ours.split(".")}
    return prefix, tuple(sorted(parts & set(WRAPPERS)))


def possible_prefixes(wanted: list[str], theirs: Mapping[str, str]) -> list[str]:
    """Prefixes with which some of the network's keys are in the state dict, the likeliest first."""
    probes = wanted[:: max(1, len(wanted) // 8)]
    prefixes = {name.removesuffix(key) for key in probes for name in theirs if name == key or name.endswith(f".{key}")}

    def place(prefix: str) -> tuple[bool, int, int, str]:
        usual = USUAL_PREFIXES.index(prefix) if prefix in USUAL_PREFIXES else len(USUAL_PREFIXES)
        return is_average(prefix), usual, len(prefix), prefix

    return sorted(prefixes, key=place)


def matched_state(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], keys: Mapping[str, str]
) -> dict[str, Tensor]:
    """The tensors under the network's keys. Counters of batch norm are whole numbers, and 0 where there are none."""
    state = {}
    for ours, value in expected.items():
        if ours.endswith(COUNTER):
            counter = found[keys[ours]].double() if ours in keys else torch.zeros(())
            counter = counter.nan_to_num(0, 0, 0).round().long()
            state[ours] = counter.reshape(value.shape) if counter.numel() == value.numel() else counter
        elif ours in keys:
            state[ours] = found[keys[ours]]
    return state
