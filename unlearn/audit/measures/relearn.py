"""Relearning: how quickly the forgotten class comes back when a few of its images are shown.

Definition: copies of every subject are trained on n images a class (Adam, cross-entropy, batch norm in train mode, dropout off),
and the accuracy on judged images of the forget class, of several the highest, is taken at steps 0, 1, 2, 4, ... The value is the
curve's mean over those steps, which are spaced as logarithms. Beside it stand the steps to 95 % of the original's accuracy, of those
that were looked at, and their ratio to the retrained model's, the Anamnesis Index (Chundawat et al. 2023, GKT; ideal 1). A step
count that the curve's end cut off is marked as censored.
The forget classes' rows of the last layer are drawn anew before, alike for all subjects: a masked logit would otherwise look as
if it could not relearn at all. From retain images alone (Hu et al. 2025) the rows stay as they are.
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

from synth.checkpoint.batch_norm import batch_norm_layers
from synth.checkpoint.classifier import Classifier, predict, to_unit
from synth.checkpoint.layers import last_layer
from unlearn.audit.audit_settings import counts
from unlearn.audit.bench import Bench
from unlearn.audit.record.intervals import fewest_pairs
from unlearn.audit.record.record import MASKED, MODEL, ORIGINAL, RETRAINED, CannotRunError, Measurement
from unlearn.data import LabelledImages

SYNTHETIC_LABELS = 20
RETAIN_LABELS = 100


@dataclass(frozen=True)
class Curve:
    """Forget accuracy in per cent after so many steps."""

    steps: tuple[int, ...]
    accuracy: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.accuracy) / len(self.accuracy)

    def reaches(self, target: float) -> tuple[int, bool]:
        """The first step at or above the target, and False; or the last step, and True: censored."""
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
    generator: torch.Generator,
    fresh_rows: bool = True,
) -> Curve:
    """The curve of a copy of the model; `model` itself is left as it is."""
    settings, forget = bench.settings, bench.forget
    copied, device = copy.deepcopy(model).requires_grad_(True), model.mean.device
    if fresh_rows:
        draw_rows_anew(copied, forget, generator)
    optimiser = torch.optim.Adam(copied.parameters(), lr=settings.relearn_lr)
    images, labels = samples.images.to(device), samples.labels.to(device)
    batch = min(settings.relearn_batch, len(samples))
    grid, accuracy, order = checkpoints(settings.relearn_steps), [], torch.empty(0, dtype=torch.long)
    for step in range(settings.relearn_steps + 1):
        if step in grid:
            copied.eval()
            accuracy.append(bench.most_called(predict(copied, judge.images).argmax(1) == judge.labels, judge.labels))
            for layer in batch_norm_layers(copied):  # alone: dropout would draw from a generator that the threads share
                layer.train()
        if step == settings.relearn_steps:
            break
        if len(order) < batch:
            order = torch.randperm(len(samples), generator=generator)
        rows, order = order[:batch].to(device), order[batch:]
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(copied(to_unit(images[rows])), labels[rows]).backward()
        optimiser.step()
    return Curve(grid, tuple(accuracy))


@torch.no_grad()
def draw_rows_anew(model: Classifier, forget: tuple[int, ...], generator: torch.Generator) -> None:
    """The forget classes' weights from U(-1/√D, 1/√D), as a new layer has them; their biases the mean of the others."""
    layer = last_layer(model)
    chosen = list(forget)
    fresh = torch.rand(len(chosen), *layer.weight.shape[1:], generator=generator)
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
            title = f"relearning from {there(bench.real.fit, count)} real images a class"
            found.append(variant(bench, f"relearn-{count}", title, bench.real.fit, count, judge))
    if bench.real and len(retained := bench.real.fit.without(bench.forget)):
        title = "what comes back from retain images alone"
        found.append(variant(bench, "relearn-retain", title, retained, RETAIN_LABELS, judge, fresh_rows=False))
    repeats = bench.settings.repeats
    if not on_real:  # this curve is then the only one that can tell a masked logit, and must by itself
        repeats = max(repeats, fewest_pairs(bench.settings.confidence))
    if bench.synthetic and bench.is_forgotten(bench.synthetic.fit.labels).any():
        title = f"relearning from {there(bench.synthetic.fit, SYNTHETIC_LABELS)} synthetic images a class"
        found.append(
            variant(bench, "relearn-synthetic", title, bench.synthetic.fit, SYNTHETIC_LABELS, judge, repeats=repeats)
        )
    if not found:
        raise CannotRunError("there is no image of the forget class to relearn from", "name real data with --data")
    return found


def there(pool: LabelledImages, count: int) -> int:
    """`count` images of each class, or as many as the pool has of the class with the fewest."""
    return min(count, int(pool.labels.unique(return_counts=True)[1].min()))


def variant(
    bench: Bench,
    name: str,
    title: str,
    pool: LabelledImages,
    count: int,
    judge: LabelledImages,
    fresh_rows: bool = True,
    repeats: int | None = None,
) -> Measurement:
    def experiment(model: Classifier, repeat: int) -> Curve:
        samples = bench.few(pool, count, name, repeat)
        chance = bench.generator(name, repeat)
        return relearn(model, samples, judge, bench, chance, fresh_rows)

    # With its rows drawn anew a masked logit is the original again: its curves are the original's, and cost nothing.
    different = {s: models for s, models in bench.subjects.items() if not (fresh_rows and s == MASKED)}
    run = dataclasses.replace(bench, subjects=different).repeated(name, experiment, repeats or bench.settings.repeats)
    curves = {s: run[ORIGINAL if s == MASKED and fresh_rows else s] for s in bench.subjects}
    original = predict(bench.subjects[ORIGINAL][0], judge.images).argmax(1) == judge.labels
    images = bench.fewest_of(judge.labels)
    target = bench.settings.relearn_share * 100 * original.double().mean().item()
    return Measurement(
        name=name, title=title, unit="%", more_left=1, resolution=bench.resolution(5.0, images), source=bench.source.kind,
        readings={s: bench.reading([[c.mean for c in model] for model in rows], images) for s, rows in curves.items()},
        details={
            "images": images,
            "target": target,
            "curves": {s: [curve_json(c, target) for model in rows for c in model] for s, rows in curves.items()},
            "anamnesis": anamnesis(curves, target),
        },
    )  # fmt: skip


def curve_json(curve: Curve, target: float) -> dict[str, Any]:
    step, censored = curve.reaches(target)
    return {"steps": curve.steps, "accuracy": curve.accuracy, "reached": step, "censored": censored}


def anamnesis(curves: dict[str, list[list[Curve]]], target: float) -> dict[str, Any] | None:
    """Both mean step counts, how many runs each were censored, their ratio, and what the ratio is worth."""
    if RETRAINED not in curves:
        return None
    ours, theirs = (reached(curves[s], target) for s in (MODEL, RETRAINED))
    mean_ours, mean_theirs = (sum(step for step, _ in runs) / len(runs) for runs in (ours, theirs))
    cut_ours, cut_theirs = (sum(censored for _, censored in runs) for runs in (ours, theirs))
    bounds = {(False, False): "exact", (True, False): "at least", (False, True): "at most", (True, True): "unknown"}
    index = mean_ours / mean_theirs if mean_theirs else None
    return {
        "steps_model": mean_ours, "runs_model": len(ours), "censored_model": cut_ours,
        "steps_retrained": mean_theirs, "runs_retrained": len(theirs), "censored_retrained": cut_theirs,
        "index": index, "bound": bounds[cut_ours > 0, cut_theirs > 0] if index is not None else "unknown",
    }  # fmt: skip


def reached(curves: Sequence[Sequence[Curve]], target: float) -> list[tuple[int, bool]]:
    return [curve.reaches(target) for model in curves for curve in model]
