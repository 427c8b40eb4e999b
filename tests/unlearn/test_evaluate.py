import json

import pytest
import torch
from torch import Tensor, nn

from synth.teacher import Classifier, ModelCard
from unlearn.data import LabelledImages
from unlearn.evaluate import evaluate
from unlearn.tables import evaluation_json, evaluation_tables

CARD = ModelCard(architecture="lenet5", class_names=("a", "b", "c"), input_shape=(1, 4, 4), mean=(0.0,), std=(1.0,))


class CallsByFirstPixel(nn.Module):
    """Calls an image by its first pixel, in [0, 1], times 255."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot((x[:, 0, 0, 0] * 255).round().long(), 3).float()


def images(called: list[int], labels: list[int]) -> LabelledImages:
    pixels = torch.tensor(called, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    return LabelledImages(pixels, torch.tensor(labels), CARD.class_names, natural=False)


def test_the_pair_and_the_confusion_are_counted_by_hand() -> None:
    data = images(called=[0, 1, 1, 1, 2, 0], labels=[0, 0, 1, 1, 2, 2])
    result = evaluate(Classifier(CallsByFirstPixel(), CARD), data, forget=(0,))
    assert (result.retain, result.forget) == (75.0, 50.0)
    assert result.per_class == [50.0, 100.0, 50.0]
    assert result.confusion == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]


def test_a_class_without_images_has_no_accuracy() -> None:
    result = evaluate(Classifier(CallsByFirstPixel(), CARD), images([1, 1], [1, 2]), forget=(0,))
    assert result.forget is None
    assert result.per_class == [None, 100.0, 0.0]


def test_tables_and_json_say_the_same() -> None:
    data = images(called=[0, 1, 2], labels=[0, 1, 1])
    results = {"unlearned": evaluate(Classifier(CallsByFirstPixel(), CARD), data, forget=(0,))}
    text = evaluation_tables(results, CARD.class_names, (0,))
    parsed = json.loads(evaluation_json(results, CARD.class_names, (0,)))
    assert "unlearned" in text
    assert "50.00  100.00" in text
    assert parsed["models"]["unlearned"]["retain"] == pytest.approx(50.0)
    assert parsed["forget"] == [0]
