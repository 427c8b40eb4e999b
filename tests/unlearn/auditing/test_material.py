from pathlib import Path

import pytest
import torch

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from synth.shards.store import Folder
from tests.runs import digits_card
from unlearn.auditing.images import ranges, real_source, rows_per_class, synthetic_source
from unlearn.data import load_images


def test_rows_are_written_as_ranges() -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"
    assert ranges([]) == ""


def test_the_ledger_has_every_real_image_that_a_measure_can_reach() -> None:
    train, test = load_images("digits", "train"), load_images("digits", "test")
    source, ledger = real_source("digits", train, test, 7, torch.Generator().manual_seed(0))
    assert source.fit.labels.bincount().tolist() == [7] * 10
    learnt, judged = ledger
    assert (learnt["split"], learnt["images"], judged["split"], judged["images"]) == ("train", 70, "test", len(test))
    rows = [r for part in learnt["rows"].split(",") for r in span(part)]
    assert torch.equal(train.images[rows], source.fit.images)
    assert judged["rows"] == f"0-{len(test) - 1}"


def span(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


def test_the_seed_decides_which_rows_of_each_class_are_drawn() -> None:
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    first, again = (rows_per_class(labels, 2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert labels[first].bincount().tolist() == [2, 2]


def test_no_row_is_drawn_from_no_image() -> None:
    assert rows_per_class(torch.empty(0, dtype=torch.long), 5, torch.Generator()).tolist() == []


def test_synthetic_images_are_split_without_an_image_on_both_sides(tiny_run: Path, tiny_teacher: Classifier) -> None:
    source = synthetic_source(Folder(tiny_run), tiny_teacher)
    assert source.kind == "synthetic"
    assert 20 < len(source.fit) + len(source.judge) <= 100
    sides = [{image.numpy().tobytes() for image in half.images} for half in (source.fit, source.judge)]
    assert not sides[0] & sides[1]


def test_shards_of_another_teacher_are_refused(tiny_run: Path) -> None:
    other = Classifier.untrained(digits_card(), 5)
    with pytest.raises(UserError, match="another teacher"):
        synthetic_source(Folder(tiny_run), other)
