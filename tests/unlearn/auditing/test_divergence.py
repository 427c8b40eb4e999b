import math

import pytest
import torch
import torch.nn.functional as F

from synth.checkpoint.answers import Outputs
from unlearn.auditing.bench import Bench
from unlearn.auditing.images import Source
from unlearn.auditing.measures.divergence import activation_distance, js_bits, measure, zero_retrain_forgetting
from unlearn.data import LabelledImages

from .subjects import SMALL


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_models_that_disagree_on_everything_score_zero_for_any_number_of_classes(classes: int) -> None:
    p = F.one_hot(torch.tensor([0, 1]), classes).double()
    q = F.one_hot(torch.tensor([1, 0]), classes).double()
    assert zero_retrain_forgetting(p, q).tolist() == pytest.approx([0, 0])
    assert zero_retrain_forgetting(p, p).tolist() == pytest.approx([1, 1])


def test_divergence_in_bits_has_its_closed_form() -> None:
    p, q = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    expected = 0.5 * math.log2(1 / 0.75) + 0.5 * (0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25))
    assert js_bits(p, q).item() == pytest.approx(expected, abs=1e-6)
    assert js_bits(q, p).item() == pytest.approx(expected, abs=1e-6)


def test_divergence_is_bounded_and_has_one_value_per_image() -> None:
    p, q = torch.randn(2, 50, 7, generator=torch.Generator().manual_seed(0)).double().mul(30).softmax(2)
    values = js_bits(p, q)
    assert values.shape == (50,)
    assert values.min() >= 0
    assert values.max() <= 1


def test_activation_distance_of_opposite_answers_is_the_square_root_of_two() -> None:
    p, q = torch.eye(3)[[0]], torch.eye(3)[[2]]
    assert activation_distance(p, q).item() == pytest.approx(math.sqrt(2))


class Answering(Bench):
    """A bench whose models are the classes that they call every image by."""

    def outputs(self, model: int, images: LabelledImages) -> Outputs:  # type: ignore[override]
        logits = torch.full((len(images), 3), -1e4)
        logits[:, model] = 0
        return Outputs(logits, logits)


def test_the_measure_is_a_mean_over_forget_images_against_each_other_subject() -> None:
    images = LabelledImages(
        torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 2]), ("a", "b", "c"), False
    )
    subjects = {"original": [0], "this model": [1], "retrained": [1, 2, 2], "random": [1]}
    source = Source("real", "images", images, images)
    bench = Answering(subjects=subjects, forget=(0,), settings=SMALL, real=source)  # type: ignore[arg-type]
    found = {m.name: {s: r.values for s, r in m.readings.items()} for m in measure(bench)}
    assert found["zero-retrain"]["original"] == ((0.0,),)
    assert found["zero-retrain"]["this model"] == ((1.0,),)
    assert found["zero-retrain"]["retrained"] == ((1.0,), (0.0,), (0.0,))
    assert found["js-retrained"]["this model"] == ((0.0, 1.0, 1.0),)
    assert found["activation-distance"]["original"][0] == pytest.approx((math.sqrt(2),) * 3)
