"""A resurrection counts only what the original does not also say of images that were drawn for other classes."""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from synth.checkpoint.classifier import Classifier
from synth.checkpoint.target import Target
from unlearn.auditing.audit import audit
from unlearn.auditing.bench import Bench
from unlearn.auditing.measures import resurrection
from unlearn.auditing.measures.resurrection import labels_for, shares_of

from .subjects import SMALL, request_for

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])  # 0 and 1 are forgotten
DEGREES = Target(name="angle", unit="degrees", low=0.0, high=40.0, bins=4, head="bins")


def bench_of(model: Classifier, forget: tuple[int, ...] = (0, 1), target: Target | None = None) -> Bench:
    return Bench(subjects={"original": [model], "this model": [model]}, forget=forget, settings=SMALL, target=target)


@pytest.mark.parametrize(
    ("said", "called", "others", "retain"),
    [
        ([0, 0, 0, 0, 1, 1, 2, 2, 2, 2], 100, 0, 100),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 100, 100, 0),
        ([0, 0, 0, 2, 0, 0, 0, 0, 2, 2], 75, 50, 50),
        ([2, 2, 2, 2, 1, 2, 2, 2, 2, 1], 50, 25, 75),
    ],
)
def test_of_several_classes_the_one_with_the_largest_advantage_counts(
    said: list[int], called: float, others: float, retain: float, tiny_teacher: Classifier
) -> None:
    found = shares_of(torch.tensor(said), LABELS, bench_of(tiny_teacher))
    assert (found.called, found.others, found.retain) == (called, others, retain)
    assert found.advantage == called - others


def test_of_a_range_the_shares_are_means_over_its_bins(tiny_teacher: Classifier) -> None:
    labels = torch.tensor([0, 1, 2, 3, 3])  # bins of 10 degrees, with their centres at 5, 15, 25 and 35
    said = torch.tensor([5.0, 26.0, 15.0, 25.0, 40.0])  # right to a bin's width: bins 0, 2 and 3
    found = shares_of(said, labels, bench_of(tiny_teacher, (0, 1), DEGREES))
    assert found.called == 50.0
    assert found.others == pytest.approx((100 / 3 + 200 / 3) / 2)  # near the centre 5: one of three; near 15: two
    assert found.retain == 100.0


@pytest.mark.parametrize(
    ("classes", "images", "others", "each"),
    [(10, 20, 9, 10), (21, 20, 20, 10), (51, 20, 50, 4), (301, 20, 200, 1), (1000, 1, 200, 1), (2, 1, 1, 1)],
)
def test_many_classes_do_not_make_a_resurrection_long(classes: int, images: int, others: int, each: int) -> None:
    forget, settings = (classes // 2,), SimpleNamespace(inversion_images=images)
    retain = tuple(c for c in range(classes) if c not in forget)
    bench: Any = SimpleNamespace(num_classes=classes, forget=forget, retain=retain, settings=settings)
    counts = labels_for(bench).bincount(minlength=classes)
    assert counts[forget[0]] == images
    drawn = counts[list(retain)]
    assert (int((drawn > 0).sum()), int(drawn.max())) == (others, each)
    assert drawn[drawn > 0].unique().tolist() == [each]


def test_a_network_that_calls_everything_by_the_class_gives_no_advantage(tiny_teacher: Classifier) -> None:
    original = copy.deepcopy(tiny_teacher)
    last = [layer for layer in original.net.modules() if isinstance(layer, nn.Linear)][-1]
    assert last.bias is not None
    with torch.no_grad():
        last.bias[0] = 1000.0
    found = {m.name: m for m in resurrection.measure(bench_of(original, (0,)))}
    means = {name: m.readings["this model"].mean for name, m in found.items()}
    assert means["resurrection"] == means["resurrection-others"] == 100
    assert means["resurrection-advantage"] == 0
    assert [name for name, m in found.items() if not m.quality] == ["resurrection-advantage"]


@pytest.mark.parametrize("batch", [4, 1000])
def test_the_batch_of_a_resurrection_is_recorded_and_kept_apart_where_it_is_not_whole(
    models: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(resurrection, "batch_that_fits", lambda labels, bench: batch)
    few = dataclasses.replace(SMALL, measures="resurrection", inversion_steps=1, repeats=2)
    record = audit(request_for(models, models["first"], tmp_path / "audit", settings=few), lambda line: None)
    found = {m["name"]: m["details"] for m in record["measurements"]}
    assert {details.get("batch") for details in found.values()} == {4 if batch == 4 else None}
    assert set(found) == {"resurrection", "resurrection-advantage", "resurrection-others", "resurrection-retain"}
