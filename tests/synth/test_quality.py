import dataclasses
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from synth.checkpoint.classifier import Classifier, predict
from synth.checkpoint.file import checkpoint_bytes
from synth.executors.executor import Made
from synth.making.copies import COPIES, counted
from synth.making.gate import QualityGate
from synth.making.make import Recipe, make_shard
from synth.making.quality import agreement, passed, shortfall, with_others
from synth.methods.deepinversion_settings import DeepInversionSettings
from synth.run.publish import open_run
from synth.run.view import describe
from synth.shards.index import GateCounts, read_index, read_shard
from synth.shards.plan import Plan, ShardJob
from synth.shards.read import decode_shard
from synth.shards.samples import Layout
from synth.shards.store import Folder
from tests.runs import card_for, digests, digits_card, make_run, recipe_for

LABELS = torch.arange(6)


def noise(seed: int) -> Tensor:
    return torch.randint(0, 256, (6, 1, 28, 28), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_the_shortfall_is_the_sum_over_the_missed_bounds(tiny_teacher: Classifier) -> None:
    images = noise(0)
    p = predict(tiny_teacher, images).double().softmax(1)
    confidence, entropy = p[range(6), LABELS], -(p * p.log()).sum(1)
    gate = QualityGate(confidence=0.8, entropy=0.1)
    expected = [max(0, 0.8 - c) + max(0, h - 0.1) for c, h in zip(confidence.tolist(), entropy.tolist(), strict=True)]
    assert shortfall(tiny_teacher, images, LABELS, gate).tolist() == pytest.approx(expected)


def test_agreement_is_the_share_of_shifted_images_that_get_the_wanted_class(tiny_teacher: Classifier) -> None:
    images = noise(1)
    votes = [
        [
            int(predict(tiny_teacher, images.roll((dy, dx), (2, 3))).argmax(1)[n] == LABELS[n])
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
            if dy or dx
        ]
        for n in range(6)
    ]
    assert agreement(tiny_teacher, images, LABELS).tolist() == [sum(v) / 8 for v in votes]


def test_a_bound_on_copies_asks_for_the_share_that_the_teacher_recognises(tiny_teacher: Classifier) -> None:
    images = noise(2)
    votes = [predict(tiny_teacher, COPIES[name](images / 255)).argmax(1) == LABELS for name in counted(1)]
    shares = torch.stack(votes).double().mean(0)
    expected = (0.8 - shares).clamp_min(0).tolist()
    assert shortfall(tiny_teacher, images, LABELS, QualityGate(copies=0.8)).tolist() == pytest.approx(expected)
    assert QualityGate.parse("copies=0.8") == QualityGate(copies=0.8)


def test_images_that_miss_the_bounds_are_generated_again_and_the_best_try_is_kept(tiny_teacher: Classifier) -> None:
    gate = QualityGate(confidence=0.5, tries=4)
    made: list[Tensor] = []

    def make(labels: Tensor) -> Tensor:
        made.append(noise(len(made)))
        return made[-1].clone()

    images, notes = passed(tiny_teacher, LABELS, make, gate)
    lacks = torch.stack([shortfall(tiny_teacher, batch, LABELS, gate) for batch in made])
    for n in range(6):
        column = lacks[:, n].tolist()
        tries = next((t for t, lack in enumerate(column, 1) if lack == 0), len(made))
        assert torch.equal(images[n], made[column[:tries].index(min(column[:tries]))][n])
        assert notes[n] == {"tries": tries} | ({"missed": True} if min(column[:tries]) > 0 else {})


def test_a_jpeg_is_judged_as_a_reader_decodes_it() -> None:
    card = digits_card(architecture="resnet20", input_shape=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3)
    teacher = Classifier.untrained(card, 0).freeze()
    plan = Plan(classes=tuple(range(10)), per_class=2, shard_size=20, views=0, image_format="jpg")
    settings = DeepInversionSettings(steps=2, batch_size=20)

    def recipe(gate: QualityGate | None) -> Recipe:
        data = checkpoint_bytes(teacher)
        return Recipe(data, None, "deepinversion", settings, device="cpu", threads=1, gate=gate)

    layout = Layout((3, 32, 32), 10, 0, "jpg")
    ungated = decode_shard(make_shard(plan.job(0), recipe(None)).data, "s", layout)
    confidence = sorted(record["confidence"] for record in ungated.records)
    for bound in confidence[5:15]:
        made = decode_shard(
            make_shard(plan.job(0), recipe(QualityGate(confidence=bound + 2e-6, tries=1))).data, "s", layout
        )
        for record in made.records:
            assert (record["confidence"] < bound + 1e-6) == record.get("missed", False)


def test_tries_are_bounded_and_none_is_wasted(tiny_teacher: Classifier) -> None:
    calls: list[int] = []

    def make(labels: Tensor) -> Tensor:
        calls.append(1)
        return noise(0)

    passed(tiny_teacher, LABELS, make, QualityGate(entropy=1e-9, tries=3))
    assert len(calls) == 3
    passed(tiny_teacher, LABELS, make, QualityGate(entropy=100.0, tries=3))
    assert len(calls) == 4
    passed(tiny_teacher, LABELS, make, None)
    assert len(calls) == 5


def test_a_further_try_makes_the_needed_images_and_a_few_others(tiny_teacher: Classifier) -> None:
    gate, asked = QualityGate(confidence=0.5, tries=2), []
    first, second = noise(0), noise(1)

    def make(labels: Tensor) -> Tensor:
        asked.append(labels.tolist())
        return (second if len(asked) > 1 else first)[labels].clone()

    lacks = shortfall(tiny_teacher, first, LABELS, gate)
    needed = (lacks > 0).nonzero()[:, 0].tolist()
    assert 0 < len(needed) <= 6
    images, _ = passed(tiny_teacher, LABELS, make, gate, fewest=len(needed))
    assert asked == [LABELS.tolist(), needed]
    better = (lacks > 0) & (shortfall(tiny_teacher, second, LABELS, gate) < lacks)
    for n in range(6):
        assert torch.equal(images[n], (second if better[n] else first)[n])
    wanted = torch.tensor([False, True, False, False, False, False])
    assert with_others(wanted, 3).tolist() == [0, 1, 3]
    assert with_others(wanted, 1).tolist() == [1]
    assert with_others(wanted, 9).tolist() == list(range(6))


def test_a_runs_index_and_status_count_what_the_gate_did(tmp_path: Path, tiny_teacher: Classifier) -> None:
    gate = QualityGate(confidence=0.97, tries=2)
    recipe = dataclasses.replace(recipe_for(tiny_teacher), gate=gate)
    plan = Plan(classes=tuple(range(10)), per_class=3, shard_size=15, views=1, seed=1)
    store, index = make_run(tmp_path / "run", recipe, plan)
    records = [record for entry in index.entries.values() for record in read_shard(store, index, entry).records]
    images = [record for record in records if "share" not in record]
    assert all("tries" not in record for record in records if "share" in record)
    assert [r for r in images if r["confidence"] < 0.97] == [r for r in images if "missed" in r]
    again, missed = sum(r["tries"] - 1 for r in images), sum("missed" in r for r in images)
    assert again > 0
    found = read_index(store)
    assert sum(e.counts.again or 0 for e in found.entries.values()) == again
    assert sum(e.counts.missed or 0 for e in found.entries.values()) == missed
    assert f"{again} images generated again, {missed} missed the bounds in every try" in describe(store)
    make_run(tmp_path / "again", recipe, plan)
    assert digests(tmp_path / "again") == digests(tmp_path / "run")


def test_the_driver_takes_the_gates_counts_from_the_worker_and_parses_no_shard(
    tmp_path: Path, tiny_teacher: Classifier
) -> None:
    def unreadable(jobs: Iterable[ShardJob], recipe: Recipe, begun: bool = False) -> Generator[Made, None, None]:
        for job in jobs:
            yield Made(job, b"no tar", gate=GateCounts(again=10 + job.number, missed=job.number))

    recipe = dataclasses.replace(recipe_for(tiny_teacher), gate=QualityGate(confidence=0.97))
    _, index = make_run(tmp_path / "run", recipe, Plan(classes=(0, 1), per_class=3, shard_size=3), unreadable)
    assert {number: (e.counts.again, e.counts.missed) for number, e in index.entries.items()} == {
        0: (10, 0),
        1: (11, 1),
    }


def test_a_run_without_a_gate_has_no_counts(tiny_run: Path, tiny_teacher: Classifier, tmp_path: Path) -> None:
    index = read_index(Folder(tiny_run))
    assert {(e.counts.again, e.counts.missed) for e in index.entries.values()} == {(None, None)}
    assert b"again" not in index.to_bytes()
    gated = dataclasses.replace(recipe_for(tiny_teacher), gate=QualityGate(confidence=0.5))
    assert card_for(gated, index.card.plan).settings["quality_gate"]["confidence"] == 0.5
    assert not open_run(Folder(tmp_path / "r"), card_for(gated, index.card.plan), False, False).entries


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a quality gate: write it like copies=0.8"),
        ("confidence", "is not a quality gate"),
        ("size=3", "is not a quality gate"),
        ("confidence=0.9,confidence=0.8", "is not a quality gate"),
        ("confidence=high", "confidence of the quality gate is not a number: 'high'"),
        ("copies=2", "copies of the quality gate must be within 0 and 1"),
        ("confidence=1.5", "confidence of the quality gate must be within 0 and 1"),
        ("entropy=-1", "entropy of the quality gate must be above 0"),
        ("entropy=nan", "entropy of the quality gate must be above 0"),
        ("entropy=inf", "entropy of the quality gate must be above 0 and finite, not inf"),
        ("tries=3", "a quality gate needs a bound"),
        ("entropy=1,tries=0", "tries of the quality gate must be within 1 and 100"),
    ],
)
def test_a_malformed_gate_is_refused_and_the_error_names_the_bound(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        QualityGate.parse(text)


def test_a_gate_is_read_in_any_order() -> None:
    assert QualityGate.parse(" tries=5, entropy=0.5,confidence=0.9") == QualityGate(
        confidence=0.9, entropy=0.5, tries=5
    )
