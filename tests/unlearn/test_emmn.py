import pytest
import torch

from synth.checkpoint.classifier import Classifier
from unlearn.methods.emmn import EMMNSettings, noise_loss, optimised_noise

NOISE = torch.randn(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("maximise", "sign"), [(True, -1), (False, 1)])
def test_the_noise_loss_is_its_equation(tiny_teacher: Classifier, maximise: bool, sign: int) -> None:
    expected = 0.0
    for image in NOISE:
        p = tiny_teacher.net(image[None])[0].softmax(0)
        expected += (-sign * p[3].log() + 0.1 * (image * image).sum()).item() / len(NOISE)
    assert noise_loss(tiny_teacher, NOISE, 3, maximise, 0.1).item() == pytest.approx(expected, rel=1e-5)


def test_the_noise_raises_or_lowers_the_teachers_error(tiny_teacher: Classifier) -> None:
    settings = EMMNSettings(noise_steps=20, l2=0.0)
    before = noise_loss(tiny_teacher, NOISE, 3, False, 0.0)
    for maximise in (True, False):
        noise = optimised_noise(tiny_teacher, 3, maximise, NOISE, settings)
        assert (noise_loss(tiny_teacher, noise, 3, False, 0.0) > before).item() == maximise
