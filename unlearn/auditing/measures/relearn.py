"""Relearning: how quickly does the forgotten class come back after a model is shown a few of its images?

Definition: copies of every model are trained on n images per class (Adam, cross-entropy, batch norm in training mode,
dropout off). The accuracy on judged images of the forget class is taken at steps 0, 1, 2, 3, 4, 6, 8, 12, 16 and so on;
with several forget classes, the accuracy of the class that is called most often. The value is the mean of this curve
over its steps, which are spaced roughly as logarithms. Beside the value stand the first of these steps at which a curve
reaches 95 % of the original's accuracy, and its ratio to the retrained model's step, the Anamnesis Index (Chundawat et
al. 2023, GKT; ideal 1). A curve that ends below the target is marked as censored. The last layer's rows of the forget
classes are drawn anew first, the same for all models. Otherwise a masked logit would look as if it could not relearn at
all. The rows stay as they are when a model is trained on retain images only (Hu et al. 2025). Of a regressor the
accuracy is the share of the range's images that are predicted to a bin's width, n counts images per bin, and a clipped
output is not clipped any more.
Cost: subjects x repeats x (label counts + 2) runs of `relearn_steps` steps; most of an audit's time.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from synth.basics.ticks import tick
from synth.checkpoint.batch_norm import batch_norm_layers
from synth.checkpoint.classifier import Classifier, predict, to_unit
from synth.checkpoint.layers import last_layer
from unlearn.auditing.at_once import of_training
from unlearn.auditing.audit_settings import counts
from unlearn.auditing.bench import Bench, check_answers
from unlearn.auditing.record.details import IMAGES, INDEX, by_subject, details
from unlearn.auditing.record.intervals import fewest_pairs
from unlearn.auditing.record.record import MASKED, MODEL, ORIGINAL, RETRAINED, CannotRunError, Measurement
from unlearn.data import LabelledImages

SYNTHETIC_LABELS = 20  # images per class
RETAIN_LABELS = 100
ON_FIRST_SCREEN = 20

NUMBER = {"type": "number"}
CURVE = details(
    steps={"type": "array", "minItems": 1, "items": INDEX},
    accuracy={
        "type": "array",
        "minItems": 1,
        "items": NUMBER,
        "description": "forget accuracy in % after each of the steps",
    },
    reached={**INDEX, "description": "the first of the steps at or above the target; the last step if there is none"},
    censored={"type": "boolean", "description": "the curve ends below the target"},
)
ANAMNESIS = details(
    steps_model=NUMBER,
    runs_model=INDEX,
    censored_model=INDEX,
    steps_retrained=NUMBER,
    runs_retrained=INDEX,
    censored_retrained=INDEX,
    index={
        "type": ["number", "null"],
        "description": "mean step of this model, divided by that of the retrained models",
    },
    bound={"enum": ["exact", "at least", "at most", "unknown"]},
)
CURVES = details(
    images=IMAGES,
    target={**NUMBER, "description": "the forget accuracy in % that counts as relearned"},
    curves=by_subject(
        {"type": "array", "items": CURVE}, "a curve for each model and repeat of a subject, in this order"
    ),
    anamnesis={"anyOf": [ANAMNESIS, {"type": "null"}], "description": "null without a retrained model"},
)
DETAILS = {"relearn": {"relearn-([0-9]+|retain|synthetic)": CURVES}}
FROM_REAL = ("what comes back from retain images",)
FROM_REAL_FORGET = ("relearning",)


@dataclass(frozen=True)
class Curve:
    """Forget accuracy, in %, after each of the steps."""

    steps: tuple[int, ...]
    accuracy: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.accuracy) / len(self.accuracy)

    def reaches(self, target: float) -> tuple[int, bool]:
        """The first step at or above the target, and False; or the last step, and True, which means censored."""
        for step, value in zip(self.steps, self.accuracy, strict=True):
            if value >= target:
                return step, False
        return self.steps[-1], True


def checkpoints(last: int) -> tuple[int, ...]:
    """0, 1, 2, 3, 4, 6, 8, 12, 16, ... up to `last`."""
    steps, power = {0, last}, 1
    while power <= last:
        steps |= {power, power + power // 2}
        power *= 2
    return tuple(sorted(step for step in steps if step <= last))


def relearn(
    model: Classifier,
    samples: LabelledImages,
    judge: LabelledImages,
    bench: Bench,
    rng: torch.Generator,
    fresh_rows: bool = True,
) -> Curve:
    """The curve of a copy of the model; `model` itself does not change.

    Raises:
        CannotRunError: the copy's answers become NaN or infinite.
    """
    settings, forget = bench.settings, bench.forget
    copied, device = copy.deepcopy(model).requires_grad_(True), model.mean.device
    if fresh_rows:
        remove_mask(copied, forget, rng)
    optimiser = torch.optim.Adam(copied.parameters(), lr=settings.relearn_lr)
    images, labels = samples.images.to(device), samples.labels.to(device)
    batch = min(settings.relearn_batch, len(samples))
    grid, accuracy, order = checkpoints(settings.relearn_steps), [], torch.empty(0, dtype=torch.long)
    for step in range(settings.relearn_steps + 1):
        if step in grid:
            copied.eval()
            logits = predict(copied, judge.images)
            check_answers(logits)
            accuracy.append(bench.most_called(bench.right(logits, judge), judge.labels))
            # Only batch norm trains: dropout would draw from a random source that the threads share.
            for layer in batch_norm_layers(copied):
                layer.train()
        if step == settings.relearn_steps:
            break
        if len(order) < batch:
            order = torch.randperm(len(samples), generator=rng)
        rows, order = order[:batch].to(device), order[batch:]
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(copied(to_unit(images[rows])), labels[rows]).backward()
        optimiser.step()
        tick(step + 1, settings.relearn_steps)
    return Curve(grid, tuple(accuracy))


def remove_mask(model: Classifier, forget: tuple[int, ...], rng: torch.Generator) -> None:
    """Draw the forget rows of the last layer anew, and clip no output. A Gaussian head has no rows of its own for a
    range.
    """
    target = model.card.target
    if target is not None:
        model.card = dataclasses.replace(model.card, target=dataclasses.replace(target, clip=None))
    if target is None or target.head == "bins":
        draw_rows_anew(model, forget, rng)


@torch.no_grad()
def draw_rows_anew(model: Classifier, forget: tuple[int, ...], rng: torch.Generator) -> None:
    """Draw the forget classes' weights from U(-1/√D, 1/√D), as in a new layer; set their biases to the others' mean."""
    layer = last_layer(model)
    chosen = list(forget)
    fresh = torch.rand(len(chosen), *layer.weight.shape[1:], generator=rng)
    bound = layer.weight[0].numel() ** -0.5
    layer.weight[chosen] = ((2 * fresh - 1) * bound).to(layer.weight)
    if layer.bias is not None:
        others = [c for c in range(len(layer.bias)) if c not in chosen]
        layer.bias[chosen] = layer.bias[others].mean()


def measure(bench: Bench) -> list[Measurement]:
    judge = bench.few(bench.source.judge, bench.settings.judge_images, "relearn", "judge")
    judge = judge.select(bench.is_forgotten(judge.labels))
    found = []
    on_real = bench.judged is bench.real
    if bench.real and on_real:
        for count in counts(bench.settings.relearn_labels):
            title = f"relearning from {there(bench.real.fit, count)} real images per class"
            key = count == ON_FIRST_SCREEN
            found.append(variant(bench, f"relearn-{count}", title, bench.real.fit, count, judge, key=key))
    if bench.real and len(retained := bench.real.fit.without(bench.forget)):
        title = "what comes back from retain images only"
        found.append(variant(bench, "relearn-retain", title, retained, RETAIN_LABELS, judge, fresh_rows=False))
    repeats = bench.settings.repeats
    if not on_real:  # this curve is then the only one to compare with the masked logit
        repeats = max(repeats, fewest_pairs(bench.settings.confidence))
    if bench.synthetic and bench.is_forgotten(bench.synthetic.fit.labels).any():
        pool = bench.synthetic.fit
        title = f"relearning from {there(pool, SYNTHETIC_LABELS)} synthetic images per class"
        found.append(
            variant(bench, "relearn-synthetic", title, pool, SYNTHETIC_LABELS, judge, key=True, repeats=repeats)
        )
    if not found:
        raise CannotRunError("there is no image of the forget class to relearn from", "name real data with --data")
    return found


def there(pool: LabelledImages, count: int) -> int:
    """`count` images per class, or the number of images of the pool's smallest class if that is less."""
    return min(count, int(pool.labels.unique(return_counts=True)[1].min()))


def variant(
    bench: Bench,
    name: str,
    title: str,
    pool: LabelledImages,
    count: int,
    judge: LabelledImages,
    fresh_rows: bool = True,
    key: bool = False,
    repeats: int | None = None,
) -> Measurement:
    """The curves of every subject from `count` images per class of the pool."""

    def experiment(model: Classifier, repeat: int) -> tuple[float, ...]:
        samples = bench.few(pool, count, name, repeat)
        return relearn(model, samples, judge, bench, bench.rng(name, repeat), fresh_rows).accuracy

    # With its rows drawn anew a masked logit is the original again: its curves are the original's, and cost nothing.
    same = {MASKED: ORIGINAL} if fresh_rows else {}
    different = {subject: models for subject, models in bench.subjects.items() if subject not in same}
    need = of_training(min(bench.settings.relearn_batch, len(pool)), bench.workers)
    run = bench.beside(different).repeated(name, experiment, repeats or bench.settings.repeats, need)
    steps = checkpoints(bench.settings.relearn_steps)
    curves = {
        subject: [[Curve(steps, accuracy) for accuracy in model] for model in run[same.get(subject, subject)]]
        for subject in bench.subjects
    }
    images = bench.fewest_of(judge.labels)
    target = target_for(bench, judge)
    return Measurement(
        name=name,
        family="relearn",
        title=title,
        unit="%",
        more_left=1,
        resolution=bench.resolution(5.0, images),
        source=bench.source.kind,
        readings={s: bench.reading([[c.mean for c in model] for model in rows], images) for s, rows in curves.items()},
        key=key,
        against_mask=fresh_rows,  # with its rows as they are a masked logit cannot relearn
        repeated_by="--repeats",
        details={
            "images": images,
            "target": target,
            "curves": {s: [curve_json(c, target) for model in rows for c in model] for s, rows in curves.items()},
            "anamnesis": anamnesis(curves, target),
        },
    )


def target_for(bench: Bench, judge: LabelledImages) -> float:
    """`relearn_share` of the original's forget accuracy, in %: of the class that it calls most often, as in a curve."""
    original = bench.right(predict(bench.subjects[ORIGINAL][0], judge.images), judge)
    return bench.settings.relearn_share * 100 * bench.largest_share(original, judge.labels)


def curve_json(curve: Curve, target: float) -> dict[str, Any]:
    step, censored = curve.reaches(target)
    return {"steps": curve.steps, "accuracy": curve.accuracy, "reached": step, "censored": censored}


def anamnesis(curves: dict[str, list[list[Curve]]], target: float) -> dict[str, Any] | None:
    """The mean step to the target of this model and of the retrained ones, and their ratio, the Anamnesis Index.

    `bound` says what the ratio is worth: a censored run makes the step, and so the ratio, only a bound.
    None without a retrained model.
    """
    if RETRAINED not in curves:
        return None
    ours, theirs = (reached(curves[s], target) for s in (MODEL, RETRAINED))
    mean_ours, mean_theirs = (sum(step for step, _ in runs) / len(runs) for runs in (ours, theirs))
    cut_ours, cut_theirs = (sum(censored for _, censored in runs) for runs in (ours, theirs))
    bounds = {(False, False): "exact", (True, False): "at least", (False, True): "at most", (True, True): "unknown"}
    index = mean_ours / mean_theirs if mean_theirs else None
    return {
        "steps_model": mean_ours,
        "runs_model": len(ours),
        "censored_model": cut_ours,
        "steps_retrained": mean_theirs,
        "runs_retrained": len(theirs),
        "censored_retrained": cut_theirs,
        "index": index,
        "bound": bounds[cut_ours > 0, cut_theirs > 0] if index is not None else "unknown",
    }


def reached(curves: Sequence[Sequence[Curve]], target: float) -> list[tuple[int, bool]]:
    return [curve.reaches(target) for model in curves for curve in model]
