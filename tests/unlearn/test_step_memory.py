"""What trainings, noise and experiments do where the memory does not hold them."""

import dataclasses
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from synth.basics.errors import UsageError, UserError
from synth.basics.memory_need import Need, peak
from synth.basics.out_of_memory import SHARE
from synth.checkpoint.classifier import Classifier, predict
from tests.memory import allow
from unlearn.auditing import at_once
from unlearn.auditing.at_once import experiments_at_once, of_training
from unlearn.auditing.measures.resurrection import spread
from unlearn.auditing.record.record import CannotRunError
from unlearn.commands.main import main
from unlearn.data import normalisation
from unlearn.methods import emmn
from unlearn.methods.emmn import EMMNSettings, noise_loss, optimised_noise, parts_of_loss
from unlearn.step_memory import refuse_large_batch, training_need

MIB = 2**20


def test_the_need_of_a_training_step_is_that_of_real_steps(tiny_teacher: Classifier) -> None:
    before = {name: value.clone() for name, value in tiny_teacher.state_dict().items()}
    need = training_need(tiny_teacher)
    assert all(torch.equal(value, before[name]) for name, value in tiny_teacher.state_dict().items())
    student = Classifier.untrained(tiny_teacher.card, 0).train()
    images = torch.rand(64, 1, 28, 28)
    real = peak(lambda: student(images).sum().backward(), "cpu")
    assert need.of(64) == pytest.approx(real, rel=0.2)


def test_a_step_that_does_not_fit_is_refused_with_the_batch_that_does(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = training_need(tiny_teacher)
    allow(need.of(40) / SHARE, monkeypatch)
    with pytest.raises(
        UsageError, match=r"^a training step on 128 images of 1x28x28 takes about .*: use --batch-size 32"
    ):
        refuse_large_batch(tiny_teacher, 128)
    refuse_large_batch(tiny_teacher, 32)
    allow(1, monkeypatch)
    with pytest.raises(UsageError, match="use smaller images or a smaller network"):
        refuse_large_batch(tiny_teacher, 4)


@pytest.mark.parametrize("command", ["train", "distill", "gkt", "edit"])
def test_every_training_refuses_a_step_that_does_not_fit_before_it_writes(
    command: str, tiny_run: Path, tiny_teacher_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, shards = tmp_path / "out", ["--shards", tiny_run, "--forget=0"]
    options = {
        "train": ["--arch=lenet5", "--data=digits"],
        "distill": shards,
        "gkt": [*shards, "--teacher", tiny_teacher_path, "--channels=8"],
        "edit": [*shards, "--teacher", tiny_teacher_path],
    }[command]
    monkeypatch.setattr("unlearn.step_memory.most_rows", lambda need, device: 20)
    monkeypatch.setattr("unlearn.step_memory.surely_fits", lambda most, device: False)
    done = CliRunner().invoke(main, [str(word) for word in (command, *options, "--out", out)])
    assert done.exit_code == 2
    assert "use --batch-size 16, or free memory" in done.output.splitlines()[-1]
    assert not out.exists()


def test_noise_in_parts_is_the_noise_in_one(tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    start = torch.randn(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    settings = EMMNSettings(noise_steps=3)
    whole = optimised_noise(tiny_teacher, 3, True, start, settings)
    assert len(list(parts_of_loss(tiny_teacher, start, 3, True, 0.1))) == 1
    monkeypatch.setattr(emmn, "PIXELS_AT_ONCE", 8 * 28 * 28)
    parts = list(parts_of_loss(tiny_teacher, start, 3, True, 0.1))
    assert len(parts) == 3
    assert sum(parts).item() == pytest.approx(noise_loss(tiny_teacher, start, 3, True, 0.1).item(), rel=1e-5)
    torch.testing.assert_close(optimised_noise(tiny_teacher, 3, True, start, settings), whole, rtol=1e-3, atol=1e-4)


def test_noise_that_no_memory_holds_is_refused_with_the_number_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    of_one_per_class = 3 * 4 * 1000 * 3 * 224 * 224  # bytes, with two copies for a checkpoint
    allow(2.5 * of_one_per_class / SHARE, monkeypatch)
    with pytest.raises(
        UserError, match=r"^the noise of 1,000 classes, with 256 images per class .*: use --noise-per-class 2$"
    ):
        emmn.refuse_large_noise((1000, 256, 3, 224, 224), "cpu")
    emmn.refuse_large_noise((1000, 2, 3, 224, 224), "cpu")


def test_fewer_experiments_run_at_once_where_the_memory_holds_no_more(
    tiny_teacher: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = Classifier.untrained(dataclasses.replace(tiny_teacher.card, width=1.0), 0)
    needs = {0.5: 10 * MIB, 1.0: 40 * MIB}

    def at(free: float) -> int:
        allow(free * MIB, monkeypatch)
        return experiments_at_once([tiny_teacher, wide, wide], lambda model: needs[model.card.width], 8)

    assert [at(free) for free in (1000, 300, 70)] == [8, 4, 1]
    with pytest.raises(CannotRunError, match="a step takes about 40 MiB of memory, and 30 MiB is free"):
        at(30)
    monkeypatch.setattr(at_once, "training_need", lambda model: Need(MIB, MIB))
    assert of_training(9, 2)(tiny_teacher) == 10 * MIB
    allow(10**15, monkeypatch)
    assert of_training(9, 2)(tiny_teacher) == 0


def test_batches_of_a_resurrection_have_all_kinds_of_class() -> None:
    labels = torch.arange(4).repeat_interleave(6)
    order = spread(len(labels), 5)
    assert order.sort().values.tolist() == list(range(24))
    assert all(len(batch.unique()) == 4 for batch in labels[order].tensor_split(5))
    assert spread(24, 1).tolist() == list(range(24))


def test_mean_and_deviation_are_those_of_all_pixels() -> None:
    images = torch.randint(256, (1200, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 1] //= 3
    unit = images.double() / 255
    expected = [tuple(round(v, 4) for v in of((0, 2, 3)).tolist()) for of in (unit.mean, unit.std)]
    assert list(normalisation(images)) == expected


def test_predictions_of_no_image_are_empty(tiny_teacher: Classifier) -> None:
    assert predict(tiny_teacher, torch.empty(0, 1, 28, 28)).shape == (0, 10)
