import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from synth.basics.errors import UsageError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import Classifier
from synth.checkpoint.file import load_checkpoint, save_checkpoint
from unlearn.commands.main import main
from unlearn.data import DataSource, LabelledImages, load_images
from unlearn.evaluate import Evaluation, evaluate, evaluate_model
from unlearn.evaluation_text import evaluation_csv, evaluation_json, evaluation_page

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


def large_evaluation(classes: int = 1000) -> Evaluation:
    """Every image of class 3 is called 7, five of class 5 are called 6, and all others are right."""
    confusion = torch.eye(classes, dtype=torch.long) * 10
    confusion[3, [3, 7]] = torch.tensor([0, 10])
    confusion[5, [5, 6]] = torch.tensor([5, 5])
    per_class: list[float | None] = [100.0] * classes
    per_class[3], per_class[5] = 0.0, 50.0
    return Evaluation(99.85, 100.0, per_class, confusion.tolist(), 10 * classes)


def test_a_thousand_classes_are_one_page_with_the_worst_and_the_most_confused() -> None:
    names = [f"kind of thing number {number} with a name that is too long for any line" for number in range(1000)]
    page = evaluation_page({"original": large_evaluation(), "student": large_evaluation()}, names, (0,), "student")
    lines = page.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 110
    assert lines[0] == "10,000 real test images"
    worst = lines.index(next(line for line in lines if line.startswith("worst of the 999 other classes")))
    assert [line.split()[4] for line in lines[worst + 1 : worst + 3]] == ["3", "5"]
    confused = lines.index("most confused pairs: student")
    assert [line.split()[-1] for line in lines[confused + 2 : confused + 4]] == ["10", "5"]


def test_everything_is_in_the_json_and_in_the_csv() -> None:
    names = [f"n{number}" for number in range(100)]
    evaluations = {"student": large_evaluation(100)}
    parsed = json.loads(evaluation_json(evaluations, names, (0,)))
    assert parsed["models"]["student"]["confusion"][3][7] == 10
    rows = list(csv.DictReader(evaluation_csv(evaluations, names, (0,)).splitlines()))
    assert len(rows) == 102
    right = {int(row["class"]): float(row["share"]) * 100 for row in rows if row["class"] == row["called"]}
    assert [right[number] for number in range(100)] == evaluations["student"].per_class
    assert [row for row in rows if row["class"] == "5"][1] == {
        **{"model": "student", "class": "5", "class_name": "n5", "forget": "0", "called": "6", "called_name": "n6"},
        **{"images": "5", "share": "0.500000"},
    }


def evaluated(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["evaluate", *map(str, arguments), "--device", "cpu"])
    return result.exit_code, result.stdout, result.stderr


def test_a_model_is_named_for_what_it_is(tiny_teacher_path: Path, tmp_path: Path) -> None:
    card = load_checkpoint(tiny_teacher_path).card
    models = {}
    for name, training in (("student", {"teacher_sha256": "0" * 64}), ("retrained", {"without": [0]})):
        models[name] = tmp_path / f"{name}.safetensors"
        save_checkpoint(Classifier.untrained(replace(card, training=training), 0), models[name])
    digits = ("--data", "digits", "--forget", 0, "--json")
    teacher = ("--teacher", tiny_teacher_path)
    for arguments, names in (
        ([tiny_teacher_path], ["original"]),
        ([models["student"], *teacher], ["original", "student"]),
        ([models["retrained"]], ["retrained"]),
        ([tiny_teacher_path, *teacher, "--reference", models["retrained"]], ["original", "model", "retrained"]),
    ):
        code, out, error = evaluated(*arguments, *digits)
        assert code == 0, error
        assert list(json.loads(out)["models"]) == names


def test_everything_goes_to_a_file_by_its_ending(tiny_teacher_path: Path, tmp_path: Path) -> None:
    for ending in ("csv", "json"):
        code, out, error = evaluated(
            tiny_teacher_path, "--data", "digits", "--forget", 0, "--out", tmp_path / f"e.{ending}"
        )
        assert (code, "450 real test images" in out, f"wrote {tmp_path}/e.{ending}" in error) == (0, True, True)
    assert (tmp_path / "e.csv").read_text().startswith("model,class,class_name,forget,called")
    assert json.loads((tmp_path / "e.json").read_text())["forget"] == [0]
    code, _, error = evaluated(tiny_teacher_path, "--data", "digits", "--forget", 0, "--out", tmp_path / "e.txt")
    assert (code, "must end in .json or .csv" in error) == (2, True)


def digits_in_folders(folder: Path, names: Sequence[str], scale: int = 1) -> Path:
    """Ten test digits per class, as grey PNGs of 8 bits, or of 16 bits if `scale` is 257."""
    data = load_images("digits", "test")
    for number, name in enumerate(names):
        (folder / "test" / name).mkdir(parents=True)
        for row in (data.labels == number).nonzero()[:10, 0].tolist():
            pixels = data.images[row, 0].numpy()
            image = Image.fromarray(pixels if scale == 1 else pixels.astype("uint16") * scale)
            image.save(folder / "test" / name / f"{row}.png")
    return folder


def test_shape_and_order_come_from_the_checkpoint_and_the_depth_from_the_images(
    tiny_teacher_path: Path, tmp_path: Path
) -> None:
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    named = tmp_path / "named.safetensors"
    teacher = load_checkpoint(tiny_teacher_path)
    save_checkpoint(Classifier(teacher.net, replace(teacher.card, class_names=names)), named)
    found = []
    for folder, scale in (("grey", 1), ("deep", 257)):
        data = digits_in_folders(tmp_path / folder, [name.title() for name in names], scale)
        code, out, error = evaluated(named, "--data", data, "--forget", "two", "--json")
        assert code == 0, error
        assert f"read 100 images of 10 classes from {data}/test" in error
        assert "its classes are matched by name, whatever their capital letters" in error
        assert "the forget class 2, 'two'" in error
        found.append(json.loads(out)["models"]["original"])
    assert found[0] == found[1]
    assert found[0]["retain"] > 60  # the teacher is briefly trained; 11 would be chance
    code, _, error = evaluated(named, "--data", data, "--forget", "tow")
    assert (code, "has no forget class 'tow': the nearest names are 'two'" in error) == (2, True)


def test_folders_with_numbers_are_matched_by_name_and_a_forget_number_must_be_clear(
    tiny_teacher_path: Path, tmp_path: Path
) -> None:
    """Folders 1, 10, 2, ... stand in the order of the alphabet: number 2 is not the class that is called 2."""
    names = tuple(sorted(map(str, range(1, 11))))
    teacher = load_checkpoint(tiny_teacher_path)
    model = tmp_path / "t.safetensors"
    save_checkpoint(Classifier(teacher.net, replace(teacher.card, class_names=names)), model)
    data = digits_in_folders(tmp_path / "data", names)
    code, _, error = evaluated(model, "--data", data, "--forget", "1")
    assert (code, "forget class '1' may be class 1, '10', or class 0, '1'" in error) == (2, True), error
    code, out, error = evaluated(model, "--data", data, "--forget", "name:3", "--json")
    assert (code, json.loads(out)["forget"]) == (0, [3]), error
