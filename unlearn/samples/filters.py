"""Filters: which synthetic samples a student may learn from. Each maps the teacher's view of N samples to a mask (N,), and can
be sent to another process.

`apply` runs them in order and counts what each one dropped, by the first that refused a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """What a filter sees of N samples: the teacher's logits (N, K), and the classes (N,) that they were made for.

    A blend is made of two images: `partners` are the classes (N,) of those with the smaller share, and `sources` (N, 2)
    the numbers of both images. For other samples they are the labels again, and one number twice. From image to image
    `classes` classes take turns.
    """

    logits: Tensor
    labels: Tensor
    partners: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    sources: Tensor = field(default_factory=lambda: torch.empty(0, 2, dtype=torch.long))
    classes: int = 1


Filter = Callable[[View], Tensor]
GOLDEN_RATIO = 0.6180339887498949


def retain_label(forget: tuple[int, ...]) -> Filter:
    """Pass samples that hold no image made for a forget class, whatever the teacher thinks of them."""
    return partial(made_for_none_of, torch.tensor(forget, dtype=torch.long))


def forget_gate(forget: tuple[int, ...], epsilon: float, temperature: float = 1.0) -> Filter:
    """Pass where p_f(x) < ε for every forget class f (the gate of Chundawat et al. 2023, GKT); all where ε is 1.

    At temperature 1 and at that of the student's targets, where these keep the forget classes.
    """
    return partial(unlike, forget, epsilon, temperature)


def entropy_below(threshold: float) -> Filter:
    """Pass where the teacher's entropy H(p) = -Σ p log p, in nats, is below the threshold."""
    return partial(surer_than, threshold)


def kept_for_training(share: float) -> Filter:
    """Pass what is made of no held-out image. The hold-out is a fixed `share` of the images.

    The fractional part of (number / golden ratio) decides, which spreads numbers in a row evenly. Images of one class are every
    K-th number; where these would cluster, as for 34 or 1,000 classes, an image's place within its class decides, plus its
    class's. So every class gives its share.
    """
    return partial(without_held_out, share)


def held_out(share: float) -> Filter:
    """Pass what is made of held-out images alone."""
    return partial(all_held_out, share)


def made_for_none_of(classes: Tensor, view: View) -> Tensor:
    return ~(torch.isin(view.labels, classes) | torch.isin(view.partners, classes))


def unlike(forget: tuple[int, ...], epsilon: float, temperature: float, view: View) -> Tensor:
    if epsilon == 1:  # a p_f near enough is rounded to 1
        return torch.ones_like(view.logits[:, 0], dtype=torch.bool)
    return forget_share(view.logits.double(), forget, temperature) < epsilon


def surer_than(threshold: float, view: View) -> Tensor:
    return entropy(view.logits) < threshold


def without_held_out(share: float, view: View) -> Tensor:
    return ~is_held_out(view, share).any(1)


def all_held_out(share: float, view: View) -> Tensor:
    return is_held_out(view, share).all(1)


def unblended(view: View) -> Tensor:
    """Pass images, not blends of two."""
    return view.sources[:, 0] == view.sources[:, 1]


def is_held_out(view: View, share: float) -> Tensor:
    numbers, k = view.sources, view.classes
    places = numbers if spread_evenly(k) else numbers // k + numbers % k
    return (places.double() * GOLDEN_RATIO) % 1 < share


@lru_cache
def spread_evenly(step: int) -> bool:
    """Whether the fractional parts of every `step`-th number / golden ratio leave small gaps: of twenty none of a tenth, of a
    hundred none of 0.03. At best they are some 1.6 times the mean.
    """
    parts = torch.arange(100, dtype=torch.double) * step * GOLDEN_RATIO % 1
    for count, gap in ((20, 0.1), (100, 0.03)):
        places = parts[:count].sort().values
        if torch.cat([places, places[:1] + 1]).diff().max() >= gap:
            return False
    return True


def forget_share(logits: Tensor, forget: tuple[int, ...], temperature: float = 1.0) -> Tensor:
    """max_f of softmax(z)_f and of softmax(z / τ)_f, the larger of the two, (N, K) to (N,)."""
    shares = [(logits / t).softmax(1)[:, list(forget)] for t in (1.0, temperature)]
    return torch.cat(shares, dim=1).amax(1)


def entropy(logits: Tensor) -> Tensor:
    """H(softmax(logits)) in nats, (N, K) to (N,)."""
    log_p = logits.double().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def apply(filters: Mapping[str, Filter], view: View) -> tuple[Tensor, dict[str, int]]:
    """The samples that pass every filter, and how many each one dropped."""
    passed = torch.ones(len(view.labels), dtype=torch.bool)
    dropped = {}
    for name, accept in filters.items():
        accepted = accept(view)
        dropped[name] = int((passed & ~accepted).sum())
        passed &= accepted
    return passed, dropped


def post_filter(logits: Tensor, forget: tuple[int, ...], threshold: float = 0.01, temperature: float = 1.0) -> Tensor:
    """The teacher's logits (N, K) with the forget classes pushed down where p_f > threshold for any f (ISPF), at temperature 1
    or at that of the student's targets.

    There, z_f becomes the sample's smallest logit, and what was taken away is spread evenly over the retain logits:

        z'_f = min_c z_c,   z'_r = z_r + Σ_f (z_f - z'_f) / |R|.

    No sample is thrown away, and the order of the retain classes stays.
    """
    rows = (forget_share(logits, forget, temperature) > threshold)[:, None]
    lowest = logits.min(1, keepdim=True).values
    removed = (logits[:, list(forget)] - lowest).sum(1, keepdim=True)
    pushed = logits + removed / (logits.shape[1] - len(set(forget)))
    pushed[:, list(forget)] = lowest
    return torch.where(rows, pushed, logits)


def without_forget_classes(logits: Tensor, forget: tuple[int, ...], temperature: float = 1.0) -> Tensor:
    """The teacher's distribution (N, K) with the forget classes removed and the rest renormalised:

    q_c = exp(z_c / τ) / Σ_{r ∉ F} exp(z_r / τ) for c ∉ F, and 0 for c ∈ F.
    """
    masked = logits.clone()
    masked[:, list(forget)] = float("-inf")
    return (masked / temperature).softmax(1)
