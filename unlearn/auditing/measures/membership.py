"""Membership inference: does the model treat training images of the forgotten class as its own?

The target is the retrained model's value. A value far below it is over-unlearning, not success.

called     An attack learns to tell training images from test images by their entropy and top confidence, on balanced
           sets of retain images. The value is the share of *forget training images* that it calls members (as in
           Chundawat et al. 2023, Bad Teaching). It is shown but not judged. On a model that saw no real image the
           attack has no skill: it then calls all images of a class members or none, depending on how sure the model is
           of that class. Under a masked logit the share is even below a retrained model's.
advantage  The share of forget training images that the same attack calls members, minus that of the forget *test*
           images (Yeom et al. 2018). It is 0 for a model that treats both alike, however sure it is of them.
forget     The attack learns to tell forget training images from forget test images, balanced and cross-validated. The
           value is the area under its ROC curve, 50 % if it cannot tell them apart. Its features are the entropy, the
           top confidence, and the modified entropy of the true class.
ratio      The same question, answered by a likelihood ratio without shadow models. Gaussians are fitted to half of the
           members and half of the others, on the logit of the top confidence among the retain classes, which a mask
           cannot change. The score of the other half is the log ratio of the two densities (the global variant of
           Carlini et al. 2022). The value is the area under the ROC curve.

Modified entropy (Song & Mittal 2021) is -(1 - p_y) log p_y - Σ_{i≠y} p_i log(1 - p_i). Public code writes log p_i at
the end.
Cost: a forward pass, and `draws` small regressions per model.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from synth.checkpoint.classifier import Classifier
from unlearn.auditing.bench import Bench
from unlearn.auditing.record.details import NOTHING
from unlearn.auditing.record.record import CannotRunError, Measurement
from unlearn.data import LabelledImages
from unlearn.samples.logits import entropy

DETAILS = {"membership": {"membership-(called|advantage|forget|ratio)": NOTHING}}
SMALLEST = 1e-12
FOLDS = 5
FEWEST = 2 * FOLDS  # pairs
Sets = dict[
    str, tuple[Tensor, Tensor]
]  # logits (N, K) and labels (N,): "retain members", "retain others", "forget ..."
Attack = Callable[[Sets, tuple[int, ...], torch.Generator], float]


def measure(bench: Bench) -> list[Measurement]:
    if bench.real is None:
        raise CannotRunError(
            "it needs images that the original was trained on, and images that it was not trained on",
            "name the real training and test data with --data",
        )
    halves = (bench.real.fit, bench.real.judge)
    pairs = min(int(bench.is_forgotten(images.labels).sum()) for images in halves)
    if not pairs:
        raise CannotRunError(
            "the real data have no training and test images of the forget classes",
            "name data that still have them with --data",
        )
    if pairs < FEWEST:
        raise CannotRunError(
            f"it needs {FEWEST} pairs of forget training and test images, and there are {pairs}",
            "name larger data with --data",
        )
    if not all((~bench.is_forgotten(images.labels)).any() for images in halves):
        raise CannotRunError(
            "the real data have no training and test images of the retain classes",
            "name data that have them with --data",
        )

    def measurement(name: str, title: str, unit: str, resolution: float, attack: Attack) -> Measurement:
        return Measurement(
            name=f"membership-{name}",
            family="membership",
            title=title,
            unit=unit,
            more_left=1,
            resolution=resolution,
            source="real",
            readings={subject: bench.reading(rows) for subject, rows in values_of(bench, name, attack).items()},
            quality=name == "called",
            repeated_by="--draws",
        )

    called = "forget training images called members"
    apart = "forget training against test images"
    return [
        measurement("called", called, "%", 5.0, called_members),
        measurement("advantage", f"{called}, minus test images", "points", advantage_error(pairs), advantage),
        # Areas under ROC curves: 50 % if the attack cannot tell the images apart.
        measurement("forget", f"{apart}, by regression", "%", area_error(pairs), told_apart),
        measurement("ratio", f"{apart}, by likelihood", "%", area_error(pairs // 2), likelihood_ratio),
    ]


def area_error(pairs: int) -> float:
    """Two standard errors, in %, of the area under the ROC curve of a blind attack (Mann & Whitney 1947); at least
    5.
    """
    return max(5.0, 200 * math.sqrt((2 * pairs + 1) / (12 * pairs * pairs)))


def advantage_error(pairs: int) -> float:
    """Two standard errors, in points, of the difference of two shares of `pairs` images each; at least 5."""
    return max(5.0, 200 * math.sqrt(0.5 / pairs))


def values_of(bench: Bench, name: str, attack: Attack) -> dict[str, list[list[float]]]:
    def experiment(model: Classifier, draw: int) -> float:
        return attack(sets_of(bench, model), bench.retain, bench.rng("membership", name, draw))

    return bench.repeated(f"membership-{name}", experiment, bench.settings.draws)


def sets_of(bench: Bench, model: Classifier) -> Sets:
    """Logits and labels of the real images, separate for forget and retain classes and for training and test images."""
    assert bench.real is not None
    found: Sets = {}
    splits: tuple[tuple[str, LabelledImages], ...] = (("members", bench.real.fit), ("others", bench.real.judge))
    for split, images in splits:
        forgotten = bench.is_forgotten(images.labels)
        logits = bench.outputs(model, images).logits
        found[f"forget {split}"] = logits[forgotten], images.labels[forgotten]
        found[f"retain {split}"] = logits[~forgotten], images.labels[~forgotten]
    return found


def called_members(sets: Sets, retain: tuple[int, ...], rng: torch.Generator) -> float:
    """The share of forget training images, in %, that the attack learnt on retain images calls members."""
    return shares_called(sets, rng)[0]


def advantage(sets: Sets, retain: tuple[int, ...], rng: torch.Generator) -> float:
    """That share minus the share of forget test images, in points."""
    members, others = shares_called(sets, rng)
    return members - others


def shares_called(sets: Sets, rng: torch.Generator) -> tuple[float, float]:
    """The shares of forget training and of forget test images, in %, that the attack calls members."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    members, others = balanced(sets["retain members"][0], sets["retain others"][0], rng)
    attack = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        *stack_features(label_free(members), label_free(others))
    )
    first, second = (attack.predict(label_free(sets[f"forget {which}"][0])) for which in ("members", "others"))
    return 100 * float(first.mean()), 100 * float(second.mean())


def told_apart(sets: Sets, retain: tuple[int, ...], rng: torch.Generator) -> float:
    """Cross-validated area under the ROC curve, in %, of members against others among the forget images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, targets = stack_features(
        *(
            np.column_stack([label_free(logits), modified_entropy(logits, labels).numpy()])
            for logits, labels in balanced_pairs(sets["forget members"], sets["forget others"], rng)
        )
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=folded(rng.initial_seed()))
    attack = make_pipeline(StandardScaler(), LogisticRegression())
    scores = cross_val_predict(attack, features, targets, cv=folds, method="decision_function")
    return 100 * float(roc_auc_score(targets, scores))


def folded(seed: int) -> int:
    """32 bits that depend on all 64 bits of a seed: the user's seed is in its upper half."""
    return (seed ^ seed >> 32) % 2**32


def likelihood_ratio(sets: Sets, retain: tuple[int, ...], rng: torch.Generator) -> float:
    """Area under the ROC curve, in %, of log N(φ | members) - log N(φ | others).

    Both densities are fitted to one half of the images and judged on the other half.
    """
    from sklearn.metrics import roc_auc_score

    members, others = balanced(sets["forget members"][0], sets["forget others"][0], rng)
    phi = [retain_confidence(logits, retain).numpy() for logits in (members, others)]
    half = len(phi[0]) // 2
    densities = [(p[:half].mean(), p[:half].std() + 1e-6) for p in phi]
    values, targets = stack_features(*(p[half:, None] for p in phi))
    score = log_density(values[:, 0], *densities[0]) - log_density(values[:, 0], *densities[1])
    return 100 * float(roc_auc_score(targets, score))


def label_free(logits: Tensor) -> np.ndarray:
    """Entropy in nats and the logit of the top confidence, (N, K) to (N, 2)."""
    top = logits.double().softmax(1).max(1).values.clamp(SMALLEST, 1 - SMALLEST)
    return torch.stack([entropy(logits), top.log() - (1 - top).log()], dim=1).numpy()


def modified_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-(1 - p_y) log p_y - Σ_{i≠y} p_i log(1 - p_i), (N, K) and (N,) to (N,)."""
    p = logits.double().softmax(1).clamp(SMALLEST, 1 - SMALLEST)
    p_y = p.gather(1, labels[:, None])[:, 0]
    others = p * (1 - p).log()
    others = others.sum(1) - others.gather(1, labels[:, None])[:, 0]
    return -(1 - p_y) * p_y.log() - others


def retain_confidence(logits: Tensor, retain: tuple[int, ...]) -> Tensor:
    """φ = log p - log(1 - p) of the top class, with p the softmax over the retain classes only; (N, K) to (N,)."""
    top = logits[:, list(retain)].double().softmax(1).max(1).values.clamp(SMALLEST, 1 - SMALLEST)
    return top.log() - (1 - top).log()


def log_density(x: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    """log N(x; mean, deviation²), without the constant."""
    return -0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation)


def balanced(members: Tensor, others: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Equally many of both, drawn without replacement, in random order."""
    count = min(len(members), len(others))
    first, second = (torch.randperm(len(rows), generator=rng)[:count] for rows in (members, others))
    return members[first], others[second]


def balanced_pairs(
    members: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], rng: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    rows = balanced(torch.arange(len(members[1])), torch.arange(len(others[1])), rng)
    return [(logits[r], labels[r]) for (logits, labels), r in zip((members, others), rows, strict=True)]


def stack_features(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The features of both sets, and targets: 1 for members, 0 for others."""
    return np.concatenate([members, others]), np.repeat([1, 0], [len(members), len(others)])
