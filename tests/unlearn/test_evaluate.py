import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from synth.basics.errors import UsageError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import save_checkpoint
from unlearn.commands.main import main
from unlearn.data import DataSource, LabelledImages
from unlearn.evaluate import evaluate, evaluate_model
from unlearn.evaluation_text import evaluation_json, evaluation_page

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


def test_both_accuracies_and_the_confusion_are_as_counted_by_hand() -> None:
    data = images(called=[0, 1, 1, 1, 2, 0], labels=[0, 0, 1, 1, 2, 2])
    result = evaluate_model(Classifier(CallsByFirstPixel(), CARD), data, forget=(0,))
    assert (result.retain, result.forget) == (75.0, 50.0)
    assert result.per_class == [50.0, 100.0, 50.0]
    assert result.confusion == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]


def test_a_class_without_images_has_no_accuracy() -> None:
    result = evaluate_model(Classifier(CallsByFirstPixel(), CARD), images([1, 1], [1, 2]), forget=(0,))
    assert result.forget is None
    assert result.per_class == [None, 100.0, 0.0]


def test_data_without_an_image_of_a_retain_class_is_refused() -> None:
    with pytest.raises(UsageError, match="no test image of a retain class"):
        evaluate_model(Classifier(CallsByFirstPixel(), CARD), images([0], [0]), forget=(0,))


def test_the_tables_and_the_json_give_the_same_numbers() -> None:
    data = images(called=[0, 1, 2], labels=[0, 1, 1])
    results = {"student": evaluate_model(Classifier(CallsByFirstPixel(), CARD), data, forget=(0,))}
    text = evaluation_page(results, CARD.class_names, (0,), "student")
    parsed = json.loads(evaluation_json(results, CARD.class_names, (0,)))
    assert "student" in text
    assert "50.00  100.00" in text
    assert parsed["models"]["student"]["retain"] == pytest.approx(50.0)
    assert parsed["forget"] == [0]


PETS = ("cat", "dog", "bird")


def pet_model(path: Path, class_names: tuple[str, ...]) -> Path:
    """A checkpoint that calls every image by its last class."""
    shape = {"input_shape": (3, 32, 32), "mean": (0.0,) * 3, "std": (1.0,) * 3}
    card = ModelCard(architecture="lenet5", class_names=class_names, **shape)  # type: ignore[arg-type]
    model = Classifier.untrained(card, 0)
    assert isinstance(model.net.classifier, nn.Linear)
    nn.init.zeros_(model.net.classifier.weight)
    model.net.classifier.bias.data = torch.tensor([0.0, 0.0, 1.0])
    save_checkpoint(model, path)
    return path


def test_a_class_is_the_same_one_in_the_model_and_in_the_data(tmp_path: Path) -> None:
    for name in PETS:  # a folder has them sorted: bird, cat, dog
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "test" / name / "a.png")
    source = DataSource(str(tmp_path), None, False, 32)
    ours, theirs = pet_model(tmp_path / "ours", PETS), pet_model(tmp_path / "theirs", ("bird", "cat", "dog"))
    results, class_names, _ = evaluate({"student": ours}, source, (2,), None, "cpu")
    assert (results["student"].retain, results["student"].forget, class_names) == (0.0, 100.0, PETS)
    with pytest.raises(UsageError, match=r"ours and .*theirs have their classes in different orders: evaluate each"):
        evaluate({"student": ours, "reference": theirs}, source, (2,), None, "cpu")


def test_a_forget_list_of_every_class_is_refused(tmp_path: Path) -> None:
    for name in PETS:
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "test" / name / "a.png")
    source = DataSource(str(tmp_path), None, False, 32)
    model = pet_model(tmp_path / "model", PETS)
    with pytest.raises(UsageError, match="every class is to be forgotten: leave at least one class to retain"):
        evaluate({"student": model}, source, (0, 1, 2), None, "cpu")


def test_a_run_folder_stands_for_its_student(tiny_teacher_path: Path, tmp_path: Path) -> None:
    given = ["--teacher", str(tiny_teacher_path), "--forget", "0", "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(main, ["edit", "--kind", "masked-logit", *given]).exit_code == 0
    done = CliRunner().invoke(main, ["evaluate", str(tmp_path / "run"), "--data", "digits", "--forget", "0"])
    assert done.exit_code == 0, done.stderr
    assert "student" in done.stdout
