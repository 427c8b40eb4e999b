import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from synth.basics import progress
from synth.basics.errors import UsageError, UserError
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import checkpoint_bytes, load_checkpoint, save_checkpoint
from tests.runs import digits_card
from unlearn.commands.main import main
from unlearn.data import DataSource, LabelledImages, load_images
from unlearn.evaluation import evaluate_model
from unlearn.training import TrainSettings, epochs_of, train, train_classifier

QUICK = TrainSettings(epochs=3, batch_size=64)


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    return load_images("digits", "train")


def test_a_reference_does_not_know_the_classes_left_out(digits: LabelledImages) -> None:
    reference = train_classifier(digits, "lenet5", QUICK, without=(0, 7), width=0.5)
    result = evaluate_model(reference, load_images("digits", "test"), (0, 7))
    assert result.forget == 0
    assert result.retain > 80
    assert reference.card.num_classes == 10
    assert reference.card.training["without"] == [0, 7]


def test_the_images_of_left_out_classes_change_nothing_about_a_reference(digits: LabelledImages) -> None:
    left_out = torch.isin(digits.labels, torch.tensor([0, 7]))
    inverted = torch.where(left_out[:, None, None, None], 255 - digits.images, digits.images)
    reference, other = (
        train_classifier(data, "lenet5", replace(QUICK, epochs=1), without=(0, 7), width=0.5)
        for data in (digits, replace(digits, images=inverted))
    )
    assert checkpoint_bytes(reference) == checkpoint_bytes(other)  # weights, and the card with mean and std
    assert reference.card.mean != train_classifier(digits, "lenet5", replace(QUICK, epochs=1), width=0.5).card.mean


def test_the_same_seed_gives_the_same_weights(digits: LabelledImages) -> None:
    once, again, other = (
        train_classifier(digits, "lenet5", replace(QUICK, epochs=1), width=0.5, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert any(not torch.equal(once[name], other[name]) for name in once)


def test_training_works_in_bfloat16_and_channels_last(digits: LabelledImages) -> None:
    settings = replace(QUICK, precision="bfloat16", layout="channels-last")
    model = train_classifier(digits, "lenet5", settings, width=0.5)
    assert evaluate_model(model, load_images("digits", "test"), ()).retain > 80
    assert all(value.dtype == torch.float32 for value in model.parameters())


def test_an_architecture_that_does_not_take_the_images_is_a_usage_error(digits: LabelledImages) -> None:
    with pytest.raises(
        UsageError, match=r"does not accept images \[1, 28, 28\] .*: choose another --arch, or .* --image-size"
    ):
        train_classifier(digits, "tests.runs:for_32", QUICK)


@pytest.mark.parametrize("name", ["resnet99", "", "timm:nope"])
def test_an_unknown_architecture_is_an_error_before_the_images_are_read(name: str, tmp_path: Path) -> None:
    source = DataSource(str(tmp_path / "gone"), None, False)
    with pytest.raises(UsageError, match=r"unknown architecture|timm"):
        train(name, 1.0, source, (), tmp_path / "t", 0, "cpu", QUICK, lambda line: pytest.fail("trained"))


def test_too_few_images_for_a_batch_are_a_usage_error(digits: LabelledImages) -> None:
    with pytest.raises(
        UsageError, match=r"there are only 0 training images, fewer than one batch of 64: lower --batch-size"
    ):
        train_classifier(digits, "lenet5", QUICK, without=tuple(range(10)))


def test_missing_test_images_are_an_error_before_the_training(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "train" / name / "a.png")
    source, settings = DataSource(str(tmp_path), None, False, 32), TrainSettings(epochs=1, batch_size=2)
    with pytest.raises(UserError, match=r"test has no folders of classes"):
        train("lenet5", 1.0, source, (), tmp_path / "t", 0, "cpu", settings, lambda line: pytest.fail("trained"))


def test_a_table_may_lack_a_class_in_one_split(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{number}.png")
    trained = "path,label,split\n0.png,ant,train\n1.png,bee,train\n2.png,cow,train\n"
    settings = TrainSettings(epochs=1, batch_size=2)
    for tested, words in (
        ("3.png,bee,test\n3.png,cow,test\n", "has no test image of class 'ant'"),
        ("3.png,ant,test\n3.png,bee,test\n3.png,cow,test\n3.png,dog,test\n", "has test images of class 'dog', but no"),
    ):
        (tmp_path / "all.csv").write_text(trained + tested)
        source = DataSource(str(tmp_path / "all.csv"), None, False, 32)
        with pytest.raises(UsageError, match=words):
            train("lenet5", 1.0, source, (), tmp_path / "t", 0, "cpu", settings, lambda line: pytest.fail(line))


def test_a_class_without_images_must_be_left_out(tmp_path: Path) -> None:
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(0 if place == "train/dog" else 2):
            Image.new("RGB", (32, 32)).save(tmp_path / place / f"{number}.png")
    source = DataSource(str(tmp_path), None, False, 32)
    settings = TrainSettings(epochs=1, batch_size=2)

    def train_without(without: tuple[int, ...]) -> None:
        train("lenet5", 0.5, source, without, tmp_path / "model.safetensors", 0, "cpu", settings, say=lambda line: None)

    with pytest.raises(UsageError, match=r"no training image of class 'dog': add some, .* \(--without dog\)"):
        train_without(())
    train_without((1,))


def test_a_training_that_diverges_is_an_error_with_its_epoch(digits: LabelledImages) -> None:
    with pytest.raises(UserError, match="diverged in epoch 1"):
        train_classifier(digits, "lenet5", replace(QUICK, lr=1e12), width=0.5)


def test_a_reference_like_a_checkpoint_has_its_order_of_classes_and_its_shape(tmp_path: Path) -> None:
    """An imported teacher has its classes in an order of its own; folders stand in that of the alphabet."""
    for place in ("train/cat", "train/dog", "train/ant", "test/cat", "test/dog", "test/ant"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (40, 30), "red").save(tmp_path / place / f"{number}.png")
    names, teacher = ("dog", "ant", "cat"), tmp_path / "t.safetensors"
    save_checkpoint(Classifier.untrained(digits_card(class_names=names), 0), teacher)
    given = ["--arch", "lenet5", "--width", "0.5", "--data", tmp_path, "--epochs", 1, "--batch-size", 2, "--threads", 1]
    options = [*given, "--like", teacher, "--without", "ant", "--out", tmp_path / "r.safetensors"]
    done = CliRunner().invoke(main, ["train", *map(str, options)])
    assert done.exit_code == 0, done.output
    assert "leaves out class 1, 'ant'" in done.output
    made = load_checkpoint(tmp_path / "r.safetensors").card
    assert (made.class_names, made.input_shape) == (names, (1, 28, 28))
    assert (made.training["without"], made.training["images"]) == ([1], 6)


def test_a_class_to_leave_out_is_one_of_the_data(tmp_path: Path) -> None:
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place / "a.png")
    source = DataSource(str(tmp_path))
    with pytest.raises(UsageError, match=r"has no class 'cot': the nearest names are 'cat'"):
        train("lenet5", 1.0, source, ("cot",), tmp_path / "x", 0, "cpu", TrainSettings(), lambda line: None)


def test_a_training_says_its_steps_before_it_starts_and_shows_them_inside_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 0.0)
    said: list[str] = []
    settings = TrainSettings(epochs=2, batch_size=500)
    train("lenet5", 0.5, DataSource("digits"), (), tmp_path / "t", 0, "cpu", settings, said.append)
    known = "the time is known after the first steps"
    assert re.fullmatch(rf"trains lenet5 for 2 epochs of 2 steps, on 1,[0-9]{{3}} images; {known}", said[0])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1 of 4 steps (25%), ")
    assert lines[-1].startswith("4 of 4 steps (100%), ")


def test_colour_photographs_are_seen_more_often(digits: LabelledImages) -> None:
    colour = replace(digits, images=digits.images.expand(-1, 3, -1, -1), natural=True)
    assert [epochs_of(data, TrainSettings()) for data in (digits, replace(digits, natural=True), colour)] == [
        10,
        10,
        60,
    ]
    assert epochs_of(colour, TrainSettings(epochs=3)) == 3
