"""What a network returns: where its logits are, and whether they are logits at all."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from synth.basics.errors import UsageError, first_line
from synth.checkpoint.building import names_code
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import untouched
from synth.checkpoint.outputs import at
from synth.checkpoint.wiring import Wiring

IMAGES = 8  # half of them far outside of the range of images, where logits leave [0, 1]
LOGITS = ("logits", "out", "output", "outputs", "pred", "prediction")  # usual names in a dict
# Steps of autograd that only give a tensor another shape or dtype.
RESHAPING = (
    "View",
    "Squeeze",
    "Unsqueeze",
    "ReshapeAlias",
    "Clone",
    "ToCopy",
    "Select",
    "Slice",
    "T",
    "Alias",
    "Unsafe",
)


def probe(net: nn.Module, card: ModelCard) -> tuple[Wiring, list[str]]:
    """The network's wiring, and what there is to say about it. The network does not change.

    Raises UsageError if the network does not accept the card's images, if it returns no logits for them, or if each
    output is an independent probability.
    """
    x_norm = images_for(card)
    returned = forward(net, card, x_norm)
    if card.target is not None and card.target.head != "bins":
        return numbers_of(returned, card), []
    place = None if isinstance(returned, Tensor) else place_of_logits(returned, card)
    raw = returned if place is None else at(returned, place)
    said = (
        []
        if place is None
        else [f"the network returns {what_was_returned(returned)}: the logits are its {named(place)}"]
    )
    outputs = kind_of_outputs(raw, card)
    if outputs == "probabilities":
        said.append("the network ends in a softmax: the logarithms of its probabilities are taken as logits")
    if outputs.startswith("one "):
        said.append(
            f"the network has one output, {'a probability' if outputs == 'one probability' else 'a logit'} of class "
            f"'{card.class_names[1]}': class '{card.class_names[0]}' gets what is left"
        )
    if place is None and names_code(card.architecture):
        place = place_in_training(net, card, x_norm)
    return replace(card.wiring, outputs=outputs, logits_at=place), said


def numbers_of(returned: Any, card: ModelCard) -> Wiring:
    """The wiring of a regressor that returns its mean, or (mean, log variance). Raises UsageError for another shape."""
    place = None
    if not isinstance(returned, Tensor):
        place = next((place for place, part in parts(returned) if part.numel() == IMAGES * card.outputs), None)
        returned = returned if place is None else at(returned, place)
    shape = list(returned.shape) if isinstance(returned, Tensor) else what_was_returned(returned)
    if shape not in ([IMAGES, card.outputs], [IMAGES, *[1] * (card.outputs == 1)], [IMAGES] * (card.outputs == 1)):
        wanted = "one number" if card.outputs == 1 else "two numbers, mean and log variance"
        raise UsageError(
            f"{card.architecture} returns {shape} for {IMAGES} images, not {wanted} per image: choose the --head "
            "that it has; one number needs --head number and --spread"
        )
    return replace(card.wiring, logits_at=place)


def images_for(card: ModelCard) -> Tensor:
    """Noise in normalised pixels, (8, C, H, W), every other image a hundred times as strong."""
    noise = torch.randn(IMAGES, *card.input_shape, generator=torch.Generator().manual_seed(0))
    noise[::2] *= 100
    return noise


def forward(net: nn.Module, card: ModelCard, x_norm: Tensor) -> Any:
    """What the network returns in evaluation mode, with its graph."""
    try:
        with untouched(net), torch.enable_grad():
            return net(x_norm.requires_grad_(True))
    except Exception as error:  # networks of torchvision and of users raise any error here
        raise UsageError(
            f"{card.architecture} does not accept images {list(card.input_shape)} ({first_line(error)}): give the "
            "--input-shape of its training"
        ) from error


def place_of_logits(returned: Any, card: ModelCard) -> int | str:
    """The place of the first tensor (N, K), or of one with a usual name. Raises UsageError if there is none."""
    places = dict(parts(returned))
    fitting = [place for place, part in places.items() if is_logits(part, card)]
    for place in [*(name for name in LOGITS if name in fitting), *fitting]:
        return place
    shapes = ", ".join(f"{place}: {list(part.shape)}" for place, part in places.items()) or "no tensors"
    raise UsageError(
        f"{card.architecture} returns {what_was_returned(returned)} ({shapes}) for {IMAGES} images, without logits "
        f"[{IMAGES}, {card.num_classes}]: {CURE}"
    )


def parts(returned: Any) -> Iterator[tuple[int | str, Tensor]]:
    """The tensors in a tuple, dict or output object, by their places."""
    if isinstance(returned, Mapping):
        entries = [(name, returned[name]) for name in returned]
    elif isinstance(returned, (tuple, list)):
        entries = list(enumerate(returned))
    else:
        entries = list(vars(returned).items()) if hasattr(returned, "__dict__") else []
    for place, part in entries:
        if isinstance(part, Tensor) and not (isinstance(place, str) and not place.isidentifier()):
            yield place, part


def is_logits(part: Tensor, card: ModelCard) -> bool:
    shape = list(part.shape)
    return shape == [IMAGES, card.num_classes] or (card.num_classes == 2 and shape in ([IMAGES, 1], [IMAGES]))


CURE = "give the number of classes that it was trained for, or write a function whose network returns logits"


def kind_of_outputs(raw: Tensor, card: ModelCard) -> str:
    """One of `OUTPUTS`. Raises UsageError for another shape, and for independent probabilities of several classes."""
    if not is_logits(raw, card):
        raise UsageError(
            f"{card.architecture} returns {list(raw.shape)} for {IMAGES} images {list(card.input_shape)}, not logits "
            f"[{IMAGES}, {card.num_classes}]: {CURE}"
        )
    step, values = last_step(raw), raw.detach().float()
    if raw.dim() == 1 or raw.shape[1] == 1:
        return "one probability" if step == "Sigmoid" else "one logit"
    if step == "Softmax" or (
        bool((values >= 0).all()) and torch.allclose(values.sum(1), torch.ones(IMAGES), atol=1e-3)
    ):
        return "probabilities"
    if step == "Sigmoid":
        raise UsageError(
            f"{card.architecture} returns an independent probability for each class, as a network does that gives an "
            "image several labels: such networks are not supported. If each image has exactly one class, give a "
            "network without the sigmoid at its end"
        )
    return "logits"


def last_step(raw: Tensor) -> str:
    """The name of the last step of the computation that changes values, such as `Softmax`."""
    node = raw.grad_fn
    while node is not None:
        name = node.name().partition("Backward")[0]
        if name not in RESHAPING:
            return name.lstrip("_")
        node = node.next_functions[0][0] if node.next_functions else None
    return ""


def place_in_training(net: nn.Module, card: ModelCard, x_norm: Tensor) -> int | str | None:
    """The place of the logits where a network returns further outputs in training only, such as auxiliary heads."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            returned = copy.deepcopy(net).train()(x_norm.detach())
    except Exception:  # a network that cannot be trained further is one that only evaluates
        return None
    if isinstance(returned, Tensor):
        return None
    return next((place for place, part in parts(returned) if is_logits(part, card)), None)


def what_was_returned(returned: Any) -> str:
    name = type(returned).__name__
    return f"a {name} of {len(returned)}" if isinstance(returned, (tuple, list)) else f"a {name}"


def named(place: int | str) -> str:
    return f"part {place}" if isinstance(place, int) else f"'{place}'"
