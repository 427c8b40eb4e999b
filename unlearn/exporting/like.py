"""A student in the form of the file that its original was imported from: same entries, keys and number types.

Whatever else the file holds about the original may hold the class that the student forgot: an optimiser's state, an
average of the weights, auxiliary heads. So the student's weights go wherever the network's weights are in the file, and
every other tensor with more than one number is left out.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.building import AUXILIARY_HEADS
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import check_state, listed
from synth.checkpoint.importing.entries import state_dicts
from synth.checkpoint.importing.inert import Inert
from synth.checkpoint.importing.matching import LEFTOVERS, Match, bare, match, matched_state
from synth.checkpoint.importing.weights_file import WeightsFile, read_weights

PLAIN = (str, int, float, bool, type(None))
NEEDS = "--like needs the file that the original was imported from"
WITHOUT_LIKE = "leave out --like and name a .pt file with --out, which 'load_state_dict' reads"


@dataclass(frozen=True)
class Exported:
    """A file's bytes, and what there is to say about it."""

    data: bytes
    said: tuple[str, ...] = ()


def export_like(student: Classifier, original: Path, out: Path, keep: Iterable[str] = ()) -> Exported:
    """The student's weights in the form of the file `original`.

    Args:
        out: the file that is to be written; its suffix has to fit the form of the original.
        keep: names of further entries, or of tensors or beginnings of their keys, that are taken over from the
            original as they are.

    Raises:
        UserError: the file is missing or damaged, or holds the weights of another network, or a number of the student
            is too large for the file's number type.
        UsageError: `out` has the suffix of another form, or the file holds a whole pickled network, or something to
            keep is not in it.
    """
    try:
        file = read_weights(original)
    except UserError as error:
        raise UserError(f"{error}; {NEEDS}") from error
    if (out.suffix.lower() == ".safetensors") != (file.metadata is not None) and out.suffix != original.suffix:
        kind, suffix = ("safetensors", ".safetensors") if file.metadata is not None else ("torch.save", ".pt")
        raise UsageError(f"{original} is a {kind} file, and --like keeps its form: name a {suffix} file with --out")
    places, heads = places_of_weights(student, file)
    rebuilt = Rebuilt(places, heads, tuple(keep))
    content = rebuilt.copy(file.content, "")
    if not rebuilt.placed:
        raise UsageError(
            f"{original} holds a whole pickled network, and only weights are written: {WITHOUT_LIKE} in that network"
        )
    unused = [name for name in rebuilt.keep if name not in rebuilt.kept]
    if unused:
        raise UsageError(
            f"--keep {unused[0]}: {original} has no such entry: it has {listed(rebuilt.left_out) or 'no others'}"
        )
    buffer = io.BytesIO()
    if file.metadata is None:
        torch.save(content, buffer)
    said = [f"{len(rebuilt.placed)} tensors in the form of {original}"]
    if rebuilt.emptied:
        said.append(
            f"set to zero, as the student has no such part and evaluation does not use it: {listed(rebuilt.emptied)}"
        )
    if rebuilt.left_out:
        said.append(
            f"left out, as it may hold what the student forgot (--keep NAME takes it over): {listed(rebuilt.left_out)}"
        )
    return Exported(
        buffer.getvalue() if file.metadata is None else save_safetensors(content, metadata=dict(file.metadata)),
        tuple(said),
    )


def places_of_weights(student: Classifier, file: WeightsFile) -> tuple[dict[str, Tensor], frozenset[str]]:
    """The tensors to write, by the full dotted names of their places in the file, and the places of auxiliary heads.

    Every state dict in the file that is one of this network gets the student's weights: its averages, too.

    Raises UserError if no state dict in the file fits the network.
    """
    net = student.net.state_dict()
    heads = AUXILIARY_HEADS.get(student.card.architecture, ())
    places: dict[str, Tensor] = {}
    empty: set[str] = set()
    best: tuple[Match, str, Mapping[str, Tensor]] | None = None
    for entry, found in state_dicts(file).items():
        first = match(found, net, heads)
        if best is None or len(first.missing) < len(best[0].missing):
            best = (first, entry, found)
        for taken in (first, *(match(found, net, heads, prefix) for prefix in first.others)):
            if fits(taken, found, net):
                for ours, theirs in taken.keys.items():
                    places[dotted(entry, theirs)] = converted(net[ours], found[theirs], f"{file.path}: {theirs}")
                empty.update(dotted(entry, key) for key in taken.dropped if bare(key).startswith(heads))
    if not places:
        assert best is not None, "state_dicts raises if there is none"
        taken, entry, found = best
        name = f"{file.path} (entry '{entry}')" if entry else str(file.path)
        state = matched_state(found, net, taken.keys) | {key: found[key] for key in taken.unknown}
        try:
            check_state(net, state, name, f"the student's {student.card.architecture}")
        except UserError as error:
            raise UserError(f"{error}; {NEEDS}") from error
        raise UserError(f"{name} holds the weights of another network than the student's: {WITHOUT_LIKE}")
    return places, frozenset(empty)


def fits(taken: Match, found: Mapping[str, Tensor], net: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of the network, shapes included."""
    return taken.fits and all(found[theirs].numel() == net[ours].numel() for ours, theirs in taken.keys.items())


def converted(value: Tensor, like: Tensor, name: str) -> Tensor:
    """The tensor with the shape and the number type of another. Raises UserError if a number becomes infinite."""
    result = value.detach().cpu().to(like.dtype).reshape(like.shape).clone()
    if result.is_floating_point() and not torch.isfinite(result).all():
        raise UserError(f"{name} is {like.dtype}, which cannot hold the student's weights: {WITHOUT_LIKE}")
    return result


def dotted(entry: str, key: str) -> str:
    return f"{entry}.{key}" if entry else key


@dataclass
class Rebuilt:
    """A copy of a file's content with other weights."""

    places: Mapping[str, Tensor]
    heads: frozenset[str]
    keep: tuple[str, ...]
    placed: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)

    def copy(self, content: Any, name: str) -> Any:
        """The content without what `left_out` then lists. `name` is its dotted name."""
        if not isinstance(content, dict):
            return content
        result: dict[Any, Any] = OrderedDict() if isinstance(content, OrderedDict) else {}
        for key, value in dict.items(content):
            self.take_over(result, key, value, dotted(name, str(key)))
        if hasattr(content, "_metadata"):  # of torch's state dicts: the versions of the network's layers
            result._metadata = content._metadata  # type: ignore[attr-defined]
        return result

    def take_over(self, result: dict[Any, Any], key: Any, value: Any, name: str) -> None:
        wanted = {asked for asked in self.keep if f".{asked}." in f".{name}."}
        self.kept |= wanted
        if isinstance(value, Tensor):
            if name in self.places:
                result[key] = self.places[name]
                self.placed.append(name)
            elif name in self.heads and not wanted:
                result[key] = torch.zeros_like(value)
                self.emptied.append(name)
            elif wanted or value.numel() <= 1 or name.rpartition(".")[2] in LEFTOVERS:
                result[key] = value
            else:
                self.left_out.append(name)
        elif isinstance(value, dict) and not wanted:
            if str(key).startswith("optim"):
                self.left_out.append(name)
            else:
                result[key] = self.copy(value, name)
        elif not isinstance(value, Inert) and (wanted or is_plain(value)):
            result[key] = value
        else:
            self.left_out.append(name)


def is_plain(value: Any) -> bool:
    """Whether the value is text, a number, or a list of such."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return isinstance(value, PLAIN)
