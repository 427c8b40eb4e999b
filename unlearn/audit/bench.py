"""What every measure works on: the subjects side by side, the images, and a source of chance for each experiment."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

from synth.basics.progress import PLAIN_INTERVAL
from synth.checkpoint.classifier import Classifier, to_unit
from synth.checkpoint.layers import last_layer
from unlearn.audit.audit_settings import AuditSettings
from unlearn.audit.images import Source, rows_per_class
from unlearn.audit.record.intervals import told_from_none
from unlearn.audit.record.record import CannotRunError, Reading
from unlearn.data import LabelledImages

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outputs:
    """A model's answers to N images: penultimate features (N, D) and logits (N, K), on the CPU."""

    features: Tensor
    logits: Tensor


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Every subject's models, frozen and on the device. A measure copies what it trains."""

    subjects: Mapping[str, Sequence[Classifier]]
    forget: tuple[int, ...]
    settings: AuditSettings
    seed: int = 0
    real: Source | None = None
    synthetic: Source | None = None
    workers: int = 1
    say: Callable[[str], None] = lambda line: None  # how far a long experiment is
    lock: Lock = field(default_factory=Lock)
    pictures: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # uint8 images and classes, by subject
    seen: dict[tuple[Classifier, int], tuple[LabelledImages, Outputs]] = field(default_factory=dict)
    results: dict[tuple[str, Classifier, int], Any] = field(default_factory=dict)  # by experiment, model and repeat

    def beside(self, subjects: Mapping[str, Sequence[Classifier]]) -> Bench:
        """The bench for another student. What both have in common, models and images, is computed once."""
        return replace(self, subjects=subjects, pictures={})

    @property
    def judged(self) -> Source | None:
        """Real images where there are any of both kinds of class, else synthetic ones; None where there are none of both either."""
        return next((source for source in (self.real, self.synthetic) if source and not self.missing_in(source)), None)

    @property
    def source(self) -> Source:
        """What every measure of images is judged on."""
        if self.judged is None:
            known = [source for source in (self.real, self.synthetic) if source]
            lacking = [f"no image of a {self.missing_in(source)} class is among the {source.name}" for source in known]
            raise CannotRunError(
                ", and ".join(lacking) or "there is no image to judge on",
                "name real data with --data, or shards of all classes with --shards",
            )
        return self.judged

    def missing_in(self, source: Source) -> str:
        """Which kind of class has no image in one of the source's halves: forget, retain, or none of them."""
        halves = [self.is_forgotten(half.labels) for half in (source.judge, source.fit)]
        if not all(forgotten.any() for forgotten in halves):
            return "forget"
        return "" if all((~forgotten).any() for forgotten in halves) else "retain"

    @property
    def retain(self) -> tuple[int, ...]:
        return tuple(c for c in range(self.num_classes) if c not in self.forget)

    @property
    def num_classes(self) -> int:
        return next(iter(self.subjects.values()))[0].card.num_classes

    def generator(self, *experiment: object) -> torch.Generator:
        """The same chance for every subject of an experiment, so that their values are paired."""
        above, seed = divmod(self.seed, 2**32)  # torch's seeds have 64 bits
        key = zlib.crc32("/".join(map(str, (*experiment, above) if above else experiment)).encode())
        return torch.Generator().manual_seed((seed << 32) + key)

    def is_forgotten(self, labels: Tensor) -> Tensor:
        return torch.isin(labels, torch.tensor(self.forget))

    def outputs(self, model: Classifier, images: LabelledImages) -> Outputs:
        """Computed once for each model and set of images."""
        key = (model, id(images))
        with self.lock:  # the features come by a hook, which must see one pass at a time
            if key not in self.seen:  # the images are kept too: another set must not get their id
                self.seen[key] = images, outputs(model, images.images)
            return self.seen[key][1]

    def few(self, images: LabelledImages, count: int, *experiment: object) -> LabelledImages:
        """Up to `count` images a class, drawn for the experiment."""
        return images.select(self.few_rows(images, count, *experiment))

    def few_rows(self, images: LabelledImages, count: int, *experiment: object) -> Tensor:
        return rows_per_class(images.labels, count, self.generator("few", *experiment))

    def keep_pictures(self, subject: str, images: Tensor, labels: Tensor, count: int) -> None:
        """The first `count` images of each class, for a person to look at."""
        rows = torch.cat([(labels == c).nonzero()[:count, 0] for c in labels.unique()])
        self.pictures[subject] = images[rows], labels[rows]

    def reading(self, values: Sequence[Sequence[float]], images: int | None = None) -> Reading:
        return Reading.of(values, self.settings.confidence, images)

    def resolution(self, least: float, images: int) -> float:
        """What a measure tells apart, in per cent: `least`, or what shares of so few images do."""
        return max(least, told_from_none(images, self.settings.confidence))

    def most_called(self, right: Tensor, labels: Tensor) -> float:
        """Per cent of its images for which `right` is true, of the forget class with most of them: one that was only masked
        must not hide among others that were forgotten.
        """
        return max(100 * right[labels == c].double().mean().item() for c in self.forget if (labels == c).any())

    def fewest_of(self, labels: Tensor) -> int:
        """Images of the forget class that has the fewest, of those that have any."""
        return min(count for c in self.forget if (count := int((labels == c).sum())))

    def map(self, work: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
        """Each job on one thread, `workers` of them at a time: the results don't depend on how many."""
        if self.workers == 1:
            yield from map(work, jobs)
            return
        with ThreadPoolExecutor(self.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(work, jobs)

    def repeated(
        self, name: str, experiment: Callable[[Classifier, int], Result], repeats: int
    ) -> dict[str, list[list[Result]]]:
        """The experiment on every model of every subject, for each repeat: by subject, by model, by repeat.

        `name` is the experiment's own: what was made under it before, for another student, isn't made again.
        """
        models = [model for models in self.subjects.values() for model in models]
        jobs = [(m, repeat) for m in models for repeat in range(repeats) if (name, m, repeat) not in self.results]
        shown = time.monotonic()
        for number, result in enumerate(self.map(lambda job: experiment(*job), jobs)):
            self.results[(name, *jobs[number])] = result
            if time.monotonic() - shown >= PLAIN_INTERVAL:
                shown = time.monotonic()
                self.say(f"{name}: {number + 1} of {len(jobs)} runs")
        return {
            subject: [[self.results[name, model, repeat] for repeat in range(repeats)] for model in models]
            for subject, models in self.subjects.items()
        }


@torch.no_grad()
def outputs(model: Classifier, images: Tensor, batch_size: int = 1000) -> Outputs:
    """Features and logits in one pass. The features are what the last layer is given; of maps, their mean over pixels."""
    features: list[Tensor] = []

    def keep(layer: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given = inputs[0].float()
        features.append((given.mean((2, 3)) if given.dim() == 4 else given.flatten(1)).cpu())

    device = model.mean.device
    handle = last_layer(model).register_forward_pre_hook(keep)
    try:
        logits = [model(to_unit(batch.to(device))).float().cpu() for batch in images.split(batch_size)]
    finally:
        handle.remove()
    return Outputs(torch.cat(features), torch.cat(logits))
