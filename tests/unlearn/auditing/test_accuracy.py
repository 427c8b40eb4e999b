import dataclasses
from pathlib import Path

import pytest
import torch

from synth.basics.errors import UsageError
from synth.checkpoint.answers import Outputs
from unlearn.auditing.audit import check_references
from unlearn.auditing.bench import Bench
from unlearn.auditing.images import Source
from unlearn.auditing.judgement import verdict
from unlearn.auditing.judgement.verdict import judge
from unlearn.auditing.measures.accuracy import measure, most_called
from unlearn.auditing.record.record import MODEL, RETRAINED, Measurement
from unlearn.data import LabelledImages

from .subjects import SMALL

# 5 images of class 3, 1000 of class 8, 100 of each other class: as a small test set of a rare class has them.
LABELS = torch.tensor([3] * 5 + [8] * 1000 + [0] * 100 + [1] * 100)
IMAGES = LabelledImages(
    torch.zeros(len(LABELS), 1, 2, 2, dtype=torch.uint8), LABELS, tuple(map(str, range(10))), natural=False
)
SOURCE = Source("real", "real test images", IMAGES, IMAGES)


class Answering(Bench):
    """A bench whose models are lists of the forget classes that they still call by their name."""

    num_classes = 10

    def outputs(self, model: list[int], images: LabelledImages) -> Outputs:  # type: ignore[override]
        called = torch.where(torch.isin(images.labels, torch.tensor([*model, 0, 1])), images.labels, 0)
        logits = torch.nn.functional.one_hot(called, self.num_classes).float()
        return Outputs(logits, logits)


def bench(remembered: list[int], *references: list[int], forget: tuple[int, ...] = (3, 8)) -> Answering:
    subjects = {"original": [[3, 8]], MODEL: [remembered], RETRAINED: list(references)}
    return Answering(subjects=subjects, forget=forget, settings=SMALL, real=SOURCE)  # type: ignore[arg-type]


def measured(bench: Bench) -> dict[str, Measurement]:
    return {m.name: m for m in measure(bench)}


def test_one_remembered_class_among_several_does_not_hide_behind_the_others() -> None:
    found = measured(bench([3], [], [], []))
    assert found["accuracy-forget"].readings[MODEL].mean == pytest.approx(100 * 5 / 1005)  # below 1 %
    assert found["accuracy-forget-worst"].readings[MODEL].values == ((100.0,),)
    assert judge(list(found.values()), 0.95).conclusion == verdict.NOT_UNLEARNED


def test_a_model_that_forgot_every_class_is_not_accused() -> None:
    found = measured(bench([], [], [], []))
    assert found["accuracy-forget-worst"].readings[MODEL].mean == 0
    assert judge(list(found.values()), 0.95).conclusion == verdict.UNDECIDED  # only the accuracies were measured


def test_one_forget_class_is_judged_by_its_accuracy() -> None:
    found = measured(bench([8], [], [], [], forget=(8,)))
    assert "accuracy-forget-worst" not in found
    assert not found["accuracy-forget"].quality
    assert judge(list(found.values()), 0.95).conclusion == verdict.NOT_UNLEARNED


def test_a_forget_class_without_images_is_left_out_of_the_worst() -> None:
    confusion = torch.tensor([[4, 0, 0], [0, 0, 0], [3, 0, 1]])
    assert most_called(confusion, (1, 2)) == 25


def test_a_reference_that_knows_only_one_of_the_forget_classes_is_refused() -> None:
    check_references(bench([], []), [Path("good")])
    with pytest.raises(UsageError, match=r"bad calls 100\.0 % of the forget images of one class by their class"):
        check_references(bench([], [], [3]), [Path("good"), Path("bad")])


def test_a_reference_that_answers_with_nan_is_refused() -> None:
    class Broken(Answering):
        def outputs(self, model: list[int], images: LabelledImages) -> Outputs:  # type: ignore[override]
            from unlearn.auditing.bench import check_answers

            found = super().outputs(model, images)
            check_answers(found.logits * float("nan"))
            return dataclasses.replace(found)

    subjects = {"original": [[3, 8]], MODEL: [[]], RETRAINED: [[]]}
    broken = Broken(subjects=subjects, forget=(3, 8), settings=SMALL, real=SOURCE)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="bad: a model answers some image with NaN or infinity: train one without"):
        check_references(broken, [Path("bad")])
