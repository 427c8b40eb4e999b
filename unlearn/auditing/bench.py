"""What every measure works on: the subjects side by side, the images, and a random source for each experiment."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

from synth.basics.errors import UserError
from synth.basics.progress import Progress
from synth.basics.ticks import listening
from synth.checkpoint.answers import Outputs, outputs
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.masses import median, near
from synth.checkpoint.target import Target
from unlearn.auditing.at_once import Need, experiments_at_once, nothing_much
from unlearn.auditing.audit_settings import AuditSettings
from unlearn.auditing.images import Source, rows_per_class
from unlearn.auditing.record.intervals import smallest_share
from unlearn.auditing.record.record import CannotRunError, Reading
from unlearn.data import LabelledImages

Job = TypeVar("Job")
Result = TypeVar("Result")
Results = dict[tuple[str, int, int], Any]  # of one experiment: by subject, number of its model, and repeat


class NotKeptError(UserError):
    """The results of an experiment cannot be written. No measure may take it for an error of its own."""


class Cache:
    """What was computed once, for all benches of one audit command."""

    def __init__(self) -> None:
        self.lock = Lock()  # guards `outputs`
        self.outputs: dict[tuple[Classifier, LabelledImages], Outputs] = {}
        self.results: dict[tuple[str, Classifier, int], Any] = {}  # by experiment, model and repeat


class Bench:
    """Every subject's models, frozen and on the device. A measure trains copies only.

    Args:
        subjects: models by the subject's name.
        forget: the forget classes.
        real, synthetic: the images that there are.
        workers: threads that experiments run on; no result depends on their number.
        say: is called with a line on the progress of a long experiment.
        cache: results of another bench of the same audit, for the models that both have.
        target: of regressors; None for classifiers.
    """

    def __init__(
        self,
        *,
        subjects: Mapping[str, Sequence[Classifier]],
        forget: tuple[int, ...],
        settings: AuditSettings,
        seed: int = 0,
        real: Source | None = None,
        synthetic: Source | None = None,
        workers: int = 1,
        say: Callable[[str], None] = lambda line: None,
        cache: Cache | None = None,
        target: Target | None = None,
    ) -> None:
        self.subjects, self.forget, self.settings, self.seed = subjects, forget, settings, seed
        self.real, self.synthetic = real, synthetic
        self.workers, self.say = workers, say
        self.cache, self.target = cache or Cache(), target
        self.pictures: dict[str, tuple[Tensor, Tensor]] = {}  # uint8 images and their classes, by subject
        # Gets an experiment's name, its results so far, and whether these are all.
        self.keep: Callable[[str, Results, bool], None] = lambda name, results, finished: None

    def beside(self, subjects: Mapping[str, Sequence[Classifier]]) -> Bench:
        """A bench with other subjects and no pictures. It shares the cache, so models of both are computed once."""
        bench = Bench(
            subjects=subjects,
            forget=self.forget,
            settings=self.settings,
            seed=self.seed,
            real=self.real,
            synthetic=self.synthetic,
            workers=self.workers,
            say=self.say,
            cache=self.cache,
            target=self.target,
        )
        bench.keep = self.keep
        return bench

    def take_over(self, kept: Mapping[str, Results]) -> None:
        """Use the results of an interrupted audit of the same subjects and images; no such experiment runs again."""
        for name, results in kept.items():
            for (subject, number, repeat), result in results.items():
                self.cache.results[name, self.subjects[subject][number], repeat] = result

    @property
    def judged(self) -> Source | None:
        """Real images if they include forget and retain classes, else synthetic ones that do, else None."""
        for source in (self.real, self.synthetic):
            if source and not self.lacking_in(source):
                return source
        return None

    @property
    def tested(self) -> Source:
        """The images that accuracies are judged on: real test images of forget and retain classes, also where the
        training images lack one of them, as after an erasure; else those of `source`.
        """
        return self.real if self.real and not self.missing_among(self.real.judge) else self.source

    @property
    def source(self) -> Source:
        """The images that every measure of images is judged on. Raises CannotRunError if there are none."""
        if self.judged is None:
            known = [source for source in (self.real, self.synthetic) if source]
            lacking = [self.lacking_in(source) for source in known]
            raise CannotRunError(
                ", and ".join(lacking) or "there is no image to judge on",
                "name real data with --data, or shards of all classes with --shards",
            )
        return self.judged

    def lacking_in(self, source: Source) -> str:
        """What is missing in one half of the source, in words; empty if nothing is."""
        learnt_from = f"images to learn from, beside the {source.name},"
        for name, half in ((source.name, source.judge), (learnt_from, source.fit)):
            if missing := self.missing_among(half):
                return f"the {name} have no image of a {missing} class"
        return ""

    def missing_among(self, images: LabelledImages) -> str:
        """The kind of class that none of the images shows: "forget" or "retain"; empty if none is missing."""
        forgotten = self.is_forgotten(images.labels)
        if not forgotten.any():
            return "forget"
        return "" if (~forgotten).any() else "retain"

    @property
    def retain(self) -> tuple[int, ...]:
        return tuple(c for c in range(self.num_classes) if c not in self.forget)

    @property
    def num_classes(self) -> int:
        return next(iter(self.subjects.values()))[0].card.num_classes

    def right(self, logits: Tensor, images: LabelledImages) -> Tensor:
        """Which of the images (N,) the answers (N, K) call by their class; of a regressor, to a bin's width."""
        if self.target is None:
            return logits.argmax(1) == images.labels
        return near(median(logits, self.target), images.values, self.target)

    def rng(self, *experiment: object) -> torch.Generator:
        """A random source for the experiment. It is the same for every subject, so that their values are paired."""
        above, seed = divmod(self.seed, 2**32)  # torch's seeds have 64 bits
        key = zlib.crc32("/".join(map(str, (*experiment, above) if above else experiment)).encode())
        return torch.Generator().manual_seed((seed << 32) + key)

    def is_forgotten(self, labels: Tensor) -> Tensor:
        return torch.isin(labels, torch.tensor(self.forget))

    def outputs(self, model: Classifier, images: LabelledImages) -> Outputs:
        """The model's answers, computed once per model and set of images.

        Raises:
            CannotRunError: the model answers with NaN or infinity.
        """
        key = (model, images)
        with self.cache.lock:  # the features come from a hook, which must see one pass at a time
            if key not in self.cache.outputs:
                whole = Progress(len(images.labels), unit="images", words="a model's answers", passing=True)
                with closing(whole) as progress:
                    found = outputs(model, images.images, report=progress.advance)
                check_answers(found.features)
                check_answers(found.logits)
                self.cache.outputs[key] = found
            return self.cache.outputs[key]

    def few(self, images: LabelledImages, count: int, *experiment: object) -> LabelledImages:
        """Up to `count` images per class, drawn for the experiment."""
        return images.select(self.few_rows(images, count, *experiment))

    def few_rows(self, images: LabelledImages, count: int, *experiment: object) -> Tensor:
        return rows_per_class(images.labels, count, self.rng("few", *experiment))

    def keep_pictures(self, subject: str, images: Tensor, labels: Tensor, count: int) -> None:
        """Keep the first `count` images of each class, for a person to look at."""
        rows = torch.cat([(labels == c).nonzero()[:count, 0] for c in labels.unique()])
        self.pictures[subject] = images[rows], labels[rows]

    def reading(self, values: Sequence[Sequence[float]], images: int | None = None) -> Reading:
        return Reading.of(values, self.settings.confidence, images)

    def resolution(self, least: float, images: int) -> float:
        """The smallest difference, in %, that shares of this many images can show; at least `least`."""
        return max(least, smallest_share(images, self.settings.confidence))

    def most_called(self, right: Tensor, labels: Tensor) -> float:
        """The share of images, in %, for which `right` is true, of the forget class with the largest share.

        The worst class counts: a class that was only masked must not hide among others that were forgotten.
        """
        return 100 * self.largest_share(right, labels)

    def largest_share(self, right: Tensor, labels: Tensor) -> float:
        """As `most_called`, from 0 to 1. A range is one event: there it is the share of all its images."""
        if self.target is not None:
            return right[self.is_forgotten(labels)].double().mean().item()
        return max(right[labels == c].double().mean().item() for c in self.forget if (labels == c).any())

    def fewest_of(self, labels: Tensor) -> int:
        """The number of images of the forget class that has the fewest. Classes without any image do not count. Of a
        range it is the number of all its images.
        """
        if self.target is not None:
            return int(self.is_forgotten(labels).sum())
        return min(count for c in self.forget if (count := int((labels == c).sum())))

    def map(self, work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
        """Each job on one thread, `workers` of them at a time. The results do not depend on `workers`."""
        if workers == 1:
            yield from map(work, jobs)
            return
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(work, jobs)

    def repeated(
        self,
        name: str,
        experiment: Callable[[Classifier, int], Result],
        repeats: int,
        need: Need = nothing_much,
    ) -> dict[str, list[list[Result]]]:
        """The experiment on every model of every subject, for each repeat: by subject, by model, by repeat.

        No other experiment may have the same `name`: a result that the cache has under it is not computed again.

        Args:
            need: the memory that an experiment takes. Where it is much, fewer than `workers` run at once.

        Raises:
            CannotRunError: the memory does not hold one experiment.
        """
        models = [model for models in self.subjects.values() for model in models]
        results = self.cache.results
        jobs = [(model, n) for model in models for n in range(repeats) if (name, model, n) not in results]

        def finished() -> Results:
            return {
                (subject, number, n): results[name, model, n]
                for subject, models in self.subjects.items()
                for number, model in enumerate(models)
                for n in range(repeats)
                if (name, model, n) in results
            }

        runs = Runs(name, len(jobs))

        def followed(numbered: tuple[int, tuple[Classifier, int]]) -> Result:
            number, job = numbered
            with listening(lambda share, show: runs.note(number, share)):
                return experiment(*job)

        try:
            at_once = experiments_at_once((model for model, _ in jobs), need, self.workers)
            for number, result in enumerate(self.map(followed, list(enumerate(jobs)), at_once)):
                results[(name, *jobs[number])] = result
                runs.note(number, 1.0)
                self.keep(name, finished(), False)
        finally:
            runs.progress.close()
            if jobs:
                self.keep(name, finished(), True)
        return {
            subject: [[results[name, model, n] for n in range(repeats)] for model in models]
            for subject, models in self.subjects.items()
        }


class Runs:
    """The progress of an experiment's runs, from the shares that are done of each. Threads note them at any time."""

    def __init__(self, name: str, count: int) -> None:
        self.progress = Progress(count, unit="runs", words=name, passing=True)
        self.shares = [0.0] * count
        self.lock = Lock()

    def note(self, number: int, share: float) -> None:
        with self.lock:
            self.shares[number] = max(self.shares[number], share)
            self.progress.advance(0, sum(self.shares))


def check_answers(values: Tensor) -> None:
    """Raise CannotRunError if a model's answers are not finite: nothing can be measured on them."""
    if not values.isfinite().all():
        raise CannotRunError(
            "a model answers some image with NaN or infinity", "check the checkpoints: train that model again"
        )
