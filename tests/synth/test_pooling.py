import pytest
import torch
from torch import nn

from synth.checkpoint.arithmetic import forward_only
from synth.checkpoint.classifier import Arithmetic, Classifier
from synth.checkpoint.pooling import quick_pools


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 9, 7), (1, 1, 2, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_quick_pools_give_the_same_bits(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    x[0, 0, 0, 0] = float("nan")
    layer = nn.MaxPool2d(2)
    with quick_pools(layer):
        found = layer(x)
    assert torch.equal(found.nan_to_num(9), layer(x).nan_to_num(9))


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(2, 1),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d((2, 3)),
        nn.MaxPool2d(2, return_indices=True),
    ],
    ids=str,
)
def test_other_pools_stay_as_they_are(layer: nn.MaxPool2d) -> None:
    with quick_pools(layer):
        assert "forward" not in vars(layer)


def test_a_forward_only_model_answers_the_same_and_is_itself_again(tiny_teacher: Classifier) -> None:
    x = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = tiny_teacher(x)
        with forward_only(tiny_teacher):
            torch.testing.assert_close(tiny_teacher(x), expected, rtol=1e-4, atol=1e-4)
            assert tiny_teacher.arithmetic == Arithmetic(channels_last=True)
        assert tiny_teacher.arithmetic == Arithmetic()
        assert torch.equal(tiny_teacher(x), expected)
    assert not any("forward" in vars(layer) for layer in tiny_teacher.modules())
