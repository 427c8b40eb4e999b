"""Membership inference: whether the model treats training images of the forgotten class as its own.

Questions with the retrained model's value as the target. Far below it is over-unlearning, not success.

called    An attack learns, on balanced sets of retain images, to tell training from test images by entropy and top confidence;
          the value is the share of *forget training images* that it calls members (as Chundawat et al. 2023, Bad Teaching).
          It is shown and not judged: an attack without skill, as on a model that saw no real image, calls all of a class or
          none of it by how sure the model is of that class, and under a masked logit the share is below a retrained model's.
advantage The same attack's share of forget training images called members, less its share of forget *test* images
          (Yeom et al. 2018): 0 for a model that treats both alike, however sure it is of them.
forget    The attack learns to tell forget training images from forget test images, balanced and cross-validated; the value is
          the area under its ROC curve, 50 % where they can't be told apart. Features: entropy, top confidence, and modified
          entropy of the true class.
ratio     The same question by a likelihood ratio without shadow models: Gaussians are fitted to the logit of the top confidence
          among retain classes, which a mask can't move, of half of the members and of half of the non-members; the score of
          the other half is the log ratio of the two densities (the global variant of Carlini et al. 2022). Area under the curve.

Modified entropy (Song & Mittal 2021): -(1 - p_y) log p_y - Σ_{i≠y} p_i log(1 - p_i); public code writes log p_i there.
Cost: a forward pass, and `draws` small regressions a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from synth.checkpoint.classifier import Classifier
from unlearn.audit.bench import Bench
from unlearn.audit.record.record import CannotRunError, Measurement
from unlearn.data import LabelledImages
from unlearn.samples.logits import entropy

SMALLEST = 1e-12
FOLDS = 5
FEWEST = 2 * FOLDS  # pairs
Sets = dict[str, tuple[Tensor, Tensor]]  # logits (N, K) and labels (N,) of retain and forget, members and others


def measure(bench: Bench) -> list[Measurement]:
    if bench.real is None:
        raise CannotRunError(
            "it needs images that the original was trained on, and others that it wasn't",
            "name the real training and test data with --data",
        )
    pairs = min(int(bench.is_forgotten(images.labels).sum()) for images in (bench.real.fit, bench.real.judge))
    if not pairs:
        raise CannotRunError(
            "no forget training and test images are among the real data", "name data that still has them with --data"
        )
    if pairs < FEWEST:
        raise CannotRunError(f"only {pairs} pairs of forget training and test images", "name larger data with --data")
    titles = {  # the last two are areas under ROC curves, 50 % where nothing is told apart
        "called": ("forget training images called members", "%", 5.0, called_members),
        "advantage": (
            "forget training images called members, less test images",
            "points",
            advantage_error(pairs),
            advantage,
        ),
        "forget": (
            "forget training against test images, by regression",
            "%",
            area_error(pairs),
            told_apart,
        ),
        "ratio": (
            "forget training against test images, by likelihood",
            "%",
            area_error(pairs // 2),
            likelihood_ratio,
        ),
    }
    return [
        Measurement(
            name=f"membership-{name}", title=title, unit=unit, more_left=1, resolution=resolution, source="real",
            quality=name == "called",
            readings={subject: bench.reading(rows) for subject, rows in values_of(bench, name, attack).items()},
        )
        for name, (title, unit, resolution, attack) in titles.items()
    ]  # fmt: skip


def area_error(pairs: int) -> float:
    """Two standard errors, in per cent, of the area under a ROC curve that means nothing (Mann & Whitney 1947); 5 at least."""
    return max(5.0, 200 * math.sqrt((2 * pairs + 1) / (12 * pairs * pairs)))


def advantage_error(pairs: int) -> float:
    """Two standard errors, in points, of the difference of two shares of so many images each; 5 at least."""
    return max(5.0, 200 * math.sqrt(0.5 / pairs))


def values_of(bench: Bench, name: str, attack: Callable[..., float]) -> dict[str, list[list[float]]]:
    def experiment(model: Classifier, draw: int) -> float:
        return attack(sets_of(bench, model), bench.retain, bench.generator("membership", name, draw))

    return bench.repeated(f"membership-{name}", experiment, bench.settings.draws)


def sets_of(bench: Bench, model: Classifier) -> Sets:
    """Logits and labels of the real images, by whether their class is forgotten and whether they are training images."""
    assert bench.real is not None
    found: Sets = {}
    splits: tuple[tuple[str, LabelledImages], ...] = (("members", bench.real.fit), ("others", bench.real.judge))
    for split, images in splits:
        forgotten = bench.is_forgotten(images.labels)
        logits = bench.outputs(model, images).logits
        found[f"forget {split}"] = logits[forgotten], images.labels[forgotten]
        found[f"retain {split}"] = logits[~forgotten], images.labels[~forgotten]
    return found


def called_members(sets: Sets, retain: tuple[int, ...], generator: torch.Generator) -> float:
    """Of the forget training images, how many per cent the attack that was learnt on retain images calls members."""
    return shares_called(sets, generator)[0]


def advantage(sets: Sets, retain: tuple[int, ...], generator: torch.Generator) -> float:
    """The same less its per cent of the forget test images."""
    members, others = shares_called(sets, generator)
    return members - others


def shares_called(sets: Sets, generator: torch.Generator) -> tuple[float, float]:
    """Per cent of forget training and of forget test images that the attack calls members."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    members, others = balanced(sets["retain members"][0], sets["retain others"][0], generator)
    attack = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        *stacked(label_free(members), label_free(others))
    )
    first, second = (attack.predict(label_free(sets[f"forget {which}"][0])) for which in ("members", "others"))
    return 100 * float(first.mean()), 100 * float(second.mean())


def told_apart(sets: Sets, retain: tuple[int, ...], generator: torch.Generator) -> float:
    """Cross-validated area under the ROC curve, in per cent, of members against others among the forget images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, targets = stacked(
        *(
            np.column_stack([label_free(logits), modified_entropy(logits, labels).numpy()])
            for logits, labels in balanced_pairs(sets["forget members"], sets["forget others"], generator)
        )
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=generator.initial_seed() % 2**32)
    attack = make_pipeline(StandardScaler(), LogisticRegression())
    scores = cross_val_predict(attack, features, targets, cv=folds, method="decision_function")
    return 100 * float(roc_auc_score(targets, scores))


def likelihood_ratio(sets: Sets, retain: tuple[int, ...], generator: torch.Generator) -> float:
    """Area under the ROC curve, in per cent, of log N(φ | members) - log N(φ | others), fitted and judged on halves."""
    from sklearn.metrics import roc_auc_score

    members, others = balanced(sets["forget members"][0], sets["forget others"][0], generator)
    phi = [retain_confidence(logits, retain).numpy() for logits in (members, others)]
    half = len(phi[0]) // 2
    densities = [(p[:half].mean(), p[:half].std() + 1e-6) for p in phi]
    values, targets = stacked(*(p[half:, None] for p in phi))
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
    """φ = log p - log(1 - p) of the top class, p being the softmax over the retain classes alone; (N, K) to (N,)."""
    top = logits[:, list(retain)].double().softmax(1).max(1).values.clamp(SMALLEST, 1 - SMALLEST)
    return top.log() - (1 - top).log()


def log_density(x: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    """log N(x; mean, deviation²), without the constant."""
    return -0.5 * ((x - mean) / deviation) ** 2 - np.log(deviation)


def balanced(members: Tensor, others: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """As many of the one as of the other, drawn without replacement; in random order."""
    count = min(len(members), len(others))
    first, second = (torch.randperm(len(rows), generator=generator)[:count] for rows in (members, others))
    return members[first], others[second]


def balanced_pairs(
    members: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    rows = balanced(torch.arange(len(members[1])), torch.arange(len(others[1])), generator)
    return [(logits[r], labels[r]) for (logits, labels), r in zip((members, others), rows, strict=True)]


def stacked(members: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets' features, and 1 for members, 0 for others."""
    return np.concatenate([members, others]), np.repeat([1, 0], [len(members), len(others)])
