"""From a trained network in any form to a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from synth.basics.errors import UsageError, UserError
from synth.basics.progress import Say
from synth.checkpoint.building import AUXILIARY_HEADS, names_code
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier, build_for, check_forward
from synth.checkpoint.file import check_finite, check_state, listed, load_weights, refuse_special, save_checkpoint
from synth.checkpoint.importing.card_options import Facts, card_for
from synth.checkpoint.importing.entries import state_dicts
from synth.checkpoint.importing.matching import Match, match, matched_state
from synth.checkpoint.importing.normalisation_check import normalisation_warning
from synth.checkpoint.importing.origin import origin_of
from synth.checkpoint.importing.probing import probe
from synth.checkpoint.importing.sources import find_source
from synth.checkpoint.importing.weights_file import WeightsFile, read_weights
from synth.checkpoint.wiring import Wiring

ONE_LOGIT = Wiring(outputs="one logit")


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to import: a file of weights, published weights, or a network that the user's own code builds with them."""

    file: Path | None = None
    weights: str | None = None
    architecture: str | None = None
    width: float = 1.0
    facts: Facts = field(default_factory=Facts)
    entry: str | None = None  # the state dict in the file
    prefix: str | None = None  # of the keys to take


@dataclass(frozen=True)
class Imported:
    """A network with its weights, its card, and what there is to say about how they were found."""

    net: nn.Module
    card: ModelCard
    said: tuple[str, ...] = ()


def import_checkpoint(request: ImportRequest, out: Path, say: Say) -> Classifier:
    """Write the checkpoint, and return what it holds. No code in a file of weights runs.

    Raises:
        UsageError: the request is incomplete, or the network does not accept images of the card's shape.
        UserError: the file is missing, holds no weights, NaN, or the weights of another architecture.
    """
    found = find(request)
    for line in found.said:
        say(line)
    check_finite(
        found.net.state_dict(), str(request.file or request.weights or request.architecture), "save an earlier one"
    )
    wiring, said = probe(found.net, found.card)
    model = Classifier(found.net.eval(), dataclasses.replace(found.card, wiring=wiring))
    check_forward(model, "give the --input-shape of its training")
    warning = normalisation_warning(model.net, model.card)
    for line in (*said, *([warning] if warning else [])):
        say(line)
    model.digest = save_checkpoint(model, out)
    return model.freeze()


def find(request: ImportRequest) -> Imported:
    """The network that the request names. Raises UsageError if it names none, or two."""
    if request.file is not None and request.weights is not None:
        raise UsageError("a file of weights and --weights exclude each other: give one of them")
    if request.weights is not None:
        return from_source(request, request.weights)
    if request.architecture is None:
        raise UsageError(
            "--arch is missing: name the network that the weights are of, or published ones with --weights"
        )
    if request.file is not None:
        facts = with_defaults(request.architecture, request.facts)
        card = card_for(request.architecture, request.width, facts)
        found = from_file(read_weights(request.file), card, request.entry, request.prefix)
        lines = (*found.said, *what_timm_states(request, card), *published_start(card))
        return dataclasses.replace(found, said=lines)
    if not names_code(request.architecture):
        raise UsageError(
            "there is nothing to import: name a file of weights, published weights with --weights torchvision:NAME, or "
            "your own code that loads its weights with --arch module:function"
        )
    card = card_for(request.architecture, request.width, request.facts)
    origin = {"builder": request.architecture, "source": "builder"}
    said = f"the weights are those that {request.architecture} loads itself"
    return Imported(build_for(card), dataclasses.replace(card, origin=origin), (said,))


def with_defaults(architecture: str, facts: Facts) -> Facts:
    """The facts, and what timm knows about its own networks where they are missing."""
    if not architecture.startswith("timm:"):
        return facts
    from synth.checkpoint.importing.from_timm import timm_facts

    return facts.over(timm_facts(architecture.removeprefix("timm:")))


def what_timm_states(request: ImportRequest, card: ModelCard) -> list[str]:
    """The facts that no option gave: a user whose network was fine-tuned on other images has to see them."""
    taken = {
        "--input-shape": None if request.facts.input_shape else ",".join(map(str, card.input_shape)),
        "--mean": None if request.facts.mean else shown(card.mean),
        "--std": None if request.facts.std else shown(card.std),
    }
    options = " ".join(f"{name} {value}" for name, value in taken.items() if value)
    return [f"taken from timm: {options}; give the values of your training if they differ"] if options else []


def published_start(card: ModelCard) -> list[str]:
    """What no file of weights shows: torchvision's published GoogLeNet and Inception normalise their input anew."""
    if card.architecture not in AUXILIARY_HEADS or set((*card.mean, *card.std)) == {0.5}:
        return []
    return [
        f"if the training began with torchvision's published {card.architecture}, which turns ImageNet's normalisation "
        "into another one first, import it with --mean 0.5 --std 0.5"
    ]


def from_source(request: ImportRequest, weights: str) -> Imported:
    """Published weights. What the options state comes before what their makers state."""
    if request.architecture is not None:
        raise UsageError("--weights names the architecture too: leave out --arch")
    source = find_source(weights)
    card = card_for(source.architecture, 1.0, request.facts.over(source.facts))
    card = dataclasses.replace(card, wiring=source.wiring)
    size = f"images of {card.input_shape[1]}x{card.input_shape[2]}, {card.num_classes} classes"
    said = f"{source.name}: {size}, mean {shown(card.mean)}, std {shown(card.std)}"
    if source.net is None:
        found = from_file(read_weights(source.file), card, request.entry, request.prefix)
    else:
        origin = {"file": source.file.name, "builder": source.architecture}
        found = Imported(source.net, dataclasses.replace(card, origin=origin))
    origin = {**found.card.origin, "source": source.name}
    return Imported(found.net, dataclasses.replace(found.card, origin=origin), (said, *found.said))


def shown(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def from_file(file: WeightsFile, card: ModelCard, entry: str | None = None, prefix: str | None = None) -> Imported:
    """The card's network with the weights in the file. Raises UserError if none of its state dicts fits the network."""
    net = build_for(card)
    candidates = state_dicts(file, entry)
    if prefix and not any(key.startswith(prefix) for found in candidates.values() for key in found):
        raise UsageError(f"{file.path} has no key that begins with '{prefix}': leave out --prefix, or name another")
    heads = AUXILIARY_HEADS.get(card.architecture, ())
    matches = {name: match(found, net.state_dict(), heads, prefix) for name, found in candidates.items()}
    fitting = [name for name in candidates if matches[name].fits] or sorted(
        candidates, key=lambda name: len(matches[name].missing)
    )[:1]
    taken = fitting[0]
    found, taken_match = candidates[taken], matches[taken]
    for key in taken_match.keys.values():
        refuse_special(found[key], key, str(file.path))
    outputs = number_of_outputs(taken_match, found, net, card.outputs)
    if card.target is not None and outputs != card.outputs:
        raise UsageError(
            f"the weights are of {outputs} outputs, and --head {card.target.head} has {card.outputs}: one number is "
            "--head number with --spread, mean and log variance are --head gaussian, and a logit per bin is --bins"
        )
    if outputs == 1 and card.num_classes == 2:
        card = dataclasses.replace(card, wiring=ONE_LOGIT)
        net = build_for(card)
    origin = origin_of(file, taken, taken_match, found, net.state_dict(), card.architecture)
    try:
        load_matched(net, found, taken_match, in_words(file.path, taken), card.architecture)
    except UserError as error:
        if outputs in (1, card.num_classes):
            raise
        raise UserError(
            f"{error}: the weights are of {outputs} classes, and --classes has {card.num_classes}"
        ) from None
    said = what_was_taken(file, taken, taken_match, [name for name in fitting[1:] if name])
    return Imported(net, dataclasses.replace(card, origin=origin), tuple(said))


def number_of_outputs(taken: Match, found: Mapping[str, Tensor], net: nn.Module, expected: int) -> int:
    """The outputs of the weights' own network, if it differs from `net` in their number only; else `expected`."""
    differing = [
        (found[theirs].shape, value.shape)
        for ours, value in net.state_dict().items()
        if (theirs := taken.keys.get(ours)) and found[theirs].shape != value.shape and value.dim()
    ]
    heads = {theirs[0] if theirs and ours == (expected, *theirs[1:]) else None for theirs, ours in differing}
    head = heads.pop() if taken.fits and len(heads) == 1 else None
    return expected if head is None else head


def load_matched(net: nn.Module, found: Mapping[str, Tensor], taken: Match, name: str, architecture: str) -> None:
    """Load the tensors into the network. Raises UserError if they do not fit it."""
    expected = net.state_dict()
    state = matched_state(found, expected, taken.keys)
    if not taken.fits and loads_itself(net, found, taken):
        return
    check_state(expected, state | {key: found[key] for key in taken.unknown}, name, architecture)
    load_weights(net, state)


def loads_itself(net: nn.Module, found: Mapping[str, Tensor], taken: Match) -> bool:
    """Whether the network takes keys that it does not have, as some do with keys of their own earlier versions."""
    theirs = {key for key in found if key.startswith(taken.prefix) and key not in taken.dropped}
    state: Any = {key.removeprefix(taken.prefix): found[key] for key in theirs}
    try:
        net.load_state_dict(state)
    except (RuntimeError, AssertionError):
        return False
    return True


def in_words(path: Path, entry: str) -> str:
    return f"{path} (entry '{entry}')" if entry else str(path)


def what_was_taken(file: WeightsFile, entry: str, taken: Match, other_entries: list[str]) -> list[str]:
    """What there is to say about the file: what was taken, what was left out, and what else there is."""
    where = f"entry '{entry}', " if entry else ""
    prefix = f"prefix '{taken.prefix}' removed, " if taken.prefix else ""
    wrappers = f"'{listed(taken.inserted)}' inside keys removed, " if taken.inserted else ""
    lines = [f"read {file.path}: {where}{prefix}{wrappers}{len(taken.keys)} tensors"]
    if taken.dropped:
        lines.append(f"left out, as the network has no such weights: {listed(taken.dropped)}")
    if file.not_loaded:
        lines.append(f"not loaded, because only weights are read: objects of {listed(file.not_loaded)}")
    if other_entries:
        lines.append(f"the file also has the weights {listed(other_entries)}: take them with --entry NAME")
    if taken.others:
        lines.append(f"the file also has the weights {listed(taken.others)}: take them with --prefix NAME")
    return lines
