"""How many experiments of an audit the memory holds at once. No result depends on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from synth.basics.free_memory import free_memory, in_gib
from synth.basics.out_of_memory import SHARE, surely_fits
from synth.checkpoint.classifier import LARGEST_STEP, Classifier
from unlearn.auditing.record.record import CannotRunError
from unlearn.step_memory import training_need

Need = Callable[[Classifier], int]  # the bytes that an experiment takes on a model


def nothing_much(model: Classifier) -> int:
    """The need of an experiment without batches."""
    return 0


def experiments_at_once(models: Iterable[Classifier], need: Need, workers: int) -> int:
    """The most experiments that fit into memory together, at most `workers`.

    Raises CannotRunError if the memory does not hold one.
    """
    kinds = of_each_kind(models)
    largest = max(map(need, kinds), default=0)
    if not largest:
        return workers
    free = free_memory(str(kinds[0].mean.device))
    fit = int(SHARE * free.size // largest)
    if not fit:
        raise CannotRunError(
            f"a step takes about {in_gib(largest)} of memory, and {in_gib(free.size)} is free ({free.limit})",
            "use a machine with more memory, or smaller batches",
        )
    return min(workers, fit)


def of_each_kind(models: Iterable[Classifier]) -> list[Classifier]:
    """One model of each architecture and width."""
    return list({(model.card.architecture, model.card.width): model for model in models}.values())


def of_training(batch_size: int, workers: int) -> Need:
    """What steps that train a model on this many images take; 0 where they surely fit."""

    def need(model: Classifier) -> int:
        most = LARGEST_STEP * model.flop * batch_size * workers
        return 0 if surely_fits(most, str(model.mean.device)) else training_need(model).of(batch_size)

    return need
