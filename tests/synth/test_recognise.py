"""`synth recognise`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch

import synth
from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.file import load_checkpoint, save_checkpoint
from synth.executors.executor import in_process
from synth.making.copies import COPIES
from synth.run.diversity import first_images
from synth.run.publish import open_run, publish
from synth.run.recognise import Question, recognise, seen_by
from synth.shards.index import INDEX, PART, Index, read_index, read_shards, shard_name
from synth.shards.plan import Plan
from synth.shards.store import Folder, open_store
from tests.runs import card_for, digits_card, make_run, recipe_for
from tests.synth.conftest import Run


@pytest.fixture(scope="module")
def other_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another network on digits: larger colour images, and classes 9 to 3, in that order."""
    card = digits_card(
        input_shape=(3, 32, 32), mean=(0.3,) * 3, std=(0.35,) * 3, class_names=tuple("9876543"), architecture="allcnn"
    )
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    save_checkpoint(Classifier.untrained(dataclasses.replace(card, width=0.1), 1), path)
    return path


def test_another_network_names_the_classes_that_it_knows(tiny_run: Path, other_path: Path) -> None:
    found = recognise(Folder(tiny_run), Question(by=[other_path])).to_json()
    images, labels = first_images(Folder(tiny_run), read_index(Folder(tiny_run)), 100)
    model = load_checkpoint(other_path)
    answers = predict(model, seen_by(images, model.card)).topk(5, dim=1).indices
    names = [["9876543"[n] for n in row] for row in answers.tolist()]
    known = [(row, str(label)) for row, label in zip(names, labels.tolist(), strict=True) if label >= 3]
    (network,) = found["networks"]
    assert (network["classes_in_common"], found["images"], found["complete"]) == (7, 100, True)
    assert network["top1"] == pytest.approx(np.mean([row[0] == name for row, name in known]), abs=1e-6)
    assert network["top5"] == pytest.approx(np.mean([name in row for row, name in known]), abs=1e-6)
    assert [c["networks"][0]["top1"] is None for c in found["classes"]] == [True] * 3 + [False] * 7
    assert sum(c["images"] for c in found["classes"]) == 100


def test_the_teacher_names_the_images_and_each_copy(tiny_run: Path, tiny_teacher: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(tiny_teacher, path)
    found = recognise(Folder(tiny_run), Question(teacher=path, images=30)).to_json()
    images, labels = first_images(Folder(tiny_run), read_index(Folder(tiny_run)), 30)
    x_unit = images.float() / 255
    expected = {name: (predict(tiny_teacher, copy(x_unit)).argmax(1) == labels) for name, copy in COPIES.items()}
    for name, right in expected.items():
        assert found["teacher"][name] == pytest.approx(right.double().mean().item(), abs=1e-6)
    under_copies = torch.stack([expected[name] for name in ("shifted", "cropped", "halved")]).double().mean().item()
    assert found["teacher"]["under_copies"] == pytest.approx(under_copies, abs=1e-6)
    assert found["teacher"]["counted_copies"] == ["shifted", "cropped", "halved"]
    assert (found["images"], found["networks"]) == (30, [])


def test_images_are_seen_as_the_network_takes_them() -> None:
    grey = torch.randint(0, 256, (2, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    colour = seen_by(grey, digits_card(input_shape=(3, 32, 40), mean=(0.0,) * 3, std=(1.0,) * 3))
    assert colour.shape == (2, 3, 32, 40)
    assert torch.equal(colour[:, 0], colour[:, 2])
    back = seen_by(colour, digits_card())
    assert back.shape == (2, 1, 28, 28)
    assert 0 <= back.min() <= back.max() <= 1
    assert torch.equal(seen_by(grey, digits_card()), grey / 255)


def test_a_network_of_few_classes_has_no_top_5(tiny_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "few.safetensors"
    save_checkpoint(Classifier.untrained(digits_card(class_names=("3", "4")), 1), path)
    assert recognise(Folder(tiny_run), Question(by=[path])).to_json()["networks"][0]["top5"] is None


def test_a_reference_is_not_asked_for_the_classes_that_it_never_saw(tiny_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "retrained.safetensors"
    save_checkpoint(Classifier.untrained(digits_card(training={"without": [0, 4]}), 1), path)
    found = recognise(Folder(tiny_run), Question(by=[path])).to_json()
    unknown = [c["class"] for c in found["classes"] if c["networks"][0]["top1"] is None]
    assert (unknown, found["networks"][0]["classes_in_common"]) == ([0, 4], 8)


def test_a_growing_run_is_judged_by_what_is_published(tiny_run: Path, other_path: Path, tmp_path: Path) -> None:
    index = read_index(Folder(tiny_run))
    half = Folder(tmp_path / "half")
    half.create()
    for number in (0, 2):
        shutil.copy(tiny_run / shard_name(number), half.path)
    entries = {number: index.entries[number] for number in (0, 2)}
    half.write(PART, Index(index.card, entries, complete=False).to_bytes())
    found = recognise(half, Question(by=[other_path]))
    assert (len(found.labels), found.complete) == (50, False)
    assert not (half.path / INDEX).exists()


def test_a_run_in_object_storage_is_judged(tiny_teacher: Classifier, other_path: Path, s3_port: int) -> None:
    name = f"s3://runs/{uuid.uuid4()}"
    recipe, plan = recipe_for(tiny_teacher), Plan(classes=(3, 4), per_class=2, shard_size=4)
    store = open_store(name)
    index = open_run(store, card_for(recipe, plan), resume=False, overwrite=False)
    publish(store, index, recipe, in_process, lambda samples: None)
    assert recognise(open_store(name), Question(by=[other_path])).labels.tolist() == [3, 4, 3, 4]


def test_each_image_is_judged_once(tiny_teacher: Classifier, tmp_path: Path, other_path: Path) -> None:
    plan = Plan(classes=(5, 6), per_class=2, shard_size=4, views=3)
    store, index = make_run(tmp_path / "run", recipe_for(tiny_teacher), plan)
    assert [len(shard) for shard in read_shards(store, index)] == [4]
    assert recognise(store, Question(by=[other_path])).labels.tolist() == [5, 6, 5, 6]


def test_the_command_prints_one_line_per_class_and_writes_json(
    run: Run, tiny_run: Path, tiny_teacher_path: Path, other_path: Path, tmp_path: Path
) -> None:
    asked = ["--by", other_path, "--by", other_path, "--teacher", tiny_teacher_path]
    code, out, err = run("recognise", tiny_run, *asked, "--json", tmp_path / "found.json")
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 12)
    assert "other (1) top-1  top-5  other (2) top-1  top-5  teacher  mirrored" in lines[0]
    assert lines[1].split()[:4] == ["0", "10", "-", "-"]
    assert lines[-1].startswith("all")
    assert f"wrote {tmp_path / 'found.json'}" in err
    found = json.loads((tmp_path / "found.json").read_text())
    assert lines[-1].split()[-1] == f"{100 * found['teacher']['under_copies']:.1f}"
    assert found == synth.recognise(tiny_run, by=[other_path, other_path], teacher=tiny_teacher_path).to_json()


def test_the_status_of_a_run_counts_what_was_recognised_while_it_was_made(run: Run, tiny_run: Path) -> None:
    counts = [entry.counts for entry in read_index(Folder(tiny_run)).entries.values()]
    recognised = sum(each.recognised or 0 for each in counts)
    assert [each.judged for each in counts] == [6, 6, 6, 6]  # two images of each shard, three copies of each
    _, out, _ = run("status", tiny_run)
    assert f"recognised {recognised / 24:.0%} of 24 changed copies" in out


def test_bad_input_is_one_line(run: Run, tiny_run: Path, tiny_teacher_path: Path, tmp_path: Path) -> None:
    def written(name: str, **changes: object) -> Path:
        model = Classifier.untrained(digits_card(**changes), 4)
        save_checkpoint(model, tmp_path / name)
        return tmp_path / name

    five = {"input_shape": (5, 28, 28), "mean": (0.0,) * 5, "std": (1.0,) * 5}
    cases: list[tuple[list[object], str, int]] = [
        ([], "name another network with --by, or the run's teacher with --teacher", 2),
        (["--by", tiny_teacher_path], "is the run's own teacher", 2),
        (["--teacher", written("a")], "was made from another teacher than", 2),
        (["--by", written("b", class_names=("cat", "dog"))], "the run has only numbers for class names", 2),
        (["--by", written("c", class_names=("11", "12"))], "has no class in common with the run", 2),
        (["--by", written("d", **five)], "takes images of 5 channels, and the run's have 1", 2),
        (["--by", tmp_path / "none.safetensors"], "there is no checkpoint", 1),
        (["--by", written("e"), "--images", 0], "0 is not in the range", 2),
    ]
    for asked, words, expected in cases:
        code, out, err = run("recognise", tiny_run, *asked)
        assert (code, out) == (expected, ""), asked
        assert words in err
    code, _, err = run("recognise", tmp_path / "nothing", "--by", written("f"))
    assert (code, err.count("\n")) == (1, 1)
    assert "there is no run in" in err


def test_a_run_without_images_yet_is_refused(tiny_run: Path, other_path: Path, run: Run, tmp_path: Path) -> None:
    empty = Folder(tmp_path / "empty")
    empty.create()
    empty.write(PART, Index(read_index(Folder(tiny_run)).card, {}, complete=False).to_bytes())
    code, _, err = run("recognise", empty.path, "--by", other_path)
    assert (code, "has no published shard yet: wait for the first one" in err) == (1, True)
