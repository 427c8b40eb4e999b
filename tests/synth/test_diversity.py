from pathlib import Path

import pytest
import torch

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.run.diversity import class_diversity, features_of, measure, nearest_distance
from synth.shards.store import Folder
from tests.runs import digits_card
from tests.synth.conftest import Run


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_spread_is_0_for_equal_images_and_1_for_classes_that_do_not_differ() -> None:
    features, labels = random(400, 8), torch.arange(400) % 4
    images = torch.arange(400).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).to(torch.uint8)
    for found in class_diversity(images, labels, features):
        assert found.spread == pytest.approx(1, abs=0.1)
        assert found.images == 100
    same = torch.eye(4, 8)[labels]
    assert all(d.spread == 0 for d in class_diversity(images, labels, same))


def test_duplicates_are_images_that_repeat_the_pixels_of_another() -> None:
    images = torch.zeros(10, 1, 4, 4, dtype=torch.uint8)
    images[:6, 0, 0, 0] = torch.arange(6).to(torch.uint8)  # five different ones, and five of zeros
    features = random(10, 3)
    features[9] = features[8] + 1e-6
    (found,) = class_diversity(images, torch.zeros(10, dtype=torch.long), features)
    assert (found.images, found.duplicates, found.near_duplicates) == (10, 4, 2)


def test_distances_are_to_the_nearest_other() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0]])
    assert nearest_distance(points, points, itself=True).tolist() == [1, 1, 2]
    assert nearest_distance(points, torch.tensor([[10.0]])).tolist() == [10, 9, 7]


def test_a_run_is_measured_with_its_own_teacher_only(tiny_run: Path, tiny_teacher: Classifier) -> None:
    found = measure(Folder(tiny_run), tiny_teacher)
    assert [d.label for d in found] == list(range(10))
    assert sum(d.images for d in found) == 100
    assert sum(d.images for d in measure(Folder(tiny_run), tiny_teacher, most=30)) == 30
    assert features_of(tiny_teacher, torch.zeros(3, 1, 28, 28, dtype=torch.uint8)).shape == (3, 42)
    with pytest.raises(UserError, match="was made from another teacher"):
        measure(Folder(tiny_run), Classifier.untrained(digits_card(), 9))


def test_a_teacher_without_features_is_refused(tiny_run: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 10, 28), torch.nn.Flatten())
    with pytest.raises(UserError, match=r"has no linear layer.*'synth preview"):
        measure(Folder(tiny_run), Classifier(net, digits_card()))


def test_the_command_prints_one_line_per_class(run: Run, tiny_run: Path, tiny_teacher_path: Path) -> None:
    code, out, err = run("diversity", tiny_run, "--teacher", tiny_teacher_path)
    assert (code, err, len(out.splitlines())) == (0, "", 11)
    code, out, err = run("diversity", tiny_run.parent, "--teacher", tiny_teacher_path)
    assert (code, out, err.count("\n")) == (1, "", 1)
