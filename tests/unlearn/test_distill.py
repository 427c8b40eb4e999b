import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.classifier import Classifier, predict, to_unit
from synth.shards.index import INDEX, PART, RunCard, read_index
from synth.shards.store import Folder
from tests.unlearn.test_stream import Growing
from unlearn.methods.distill import (
    LOOP,
    Arrived,
    Distillation,
    DistillSettings,
    Rows,
    distillation_loss,
    fill_in,
    targets_for,
    training_filters,
)
from unlearn.methods.method import Inputs
from unlearn.methods.student import forget_classes, student_card, teacher_card
from unlearn.run.carry_out import Request, unlearn
from unlearn.run.folder import PROVENANCE
from unlearn.run.loop import run_method
from unlearn.samples.pool import Batch, ShardPool
from unlearn.samples.stream import follow, load_complete
from unlearn.settings import LoopSettings

QUICK = DistillSettings(steps=150, batch_size=32, shift=2)


def at_work(
    pools: Iterable[ShardPool],
    run: RunCard,
    settings: DistillSettings = QUICK,
    forget: tuple[int, ...] = (0,),
    seed: int = 0,
    device: str = "cpu",
) -> Distillation:
    card = student_card(teacher_card(run), None, None, {})
    return Distillation(Inputs(None, card, forget, seed, device, pools=iter(pools)), settings)


def learn(run: Path, forget: tuple[int, ...] = (0,), seed: int = 0) -> tuple[Classifier, ShardPool]:
    pool = load_complete(Folder(run), training_filters(forget, QUICK))
    method = at_work([pool], pool.index.card, forget=forget, seed=seed)
    return run_method(method, LOOP).student, pool


def test_the_student_learns_the_retain_classes_and_never_answers_a_forget_class(tiny_run: Path) -> None:
    student, pool = learn(tiny_run, forget=(3, 8))
    everything = load_complete(Folder(tiny_run), {}).samples()
    kept = pool.samples()
    assert set(kept.labels.tolist()) & {3, 8} == set()
    agreement = (predict(student, kept.images).argmax(1) == kept.logits.argmax(1)).float().mean()
    assert agreement > 0.9
    assert not torch.isin(predict(student, everything.images).argmax(1), torch.tensor([3, 8])).any()


def test_the_same_seed_gives_the_same_student(tiny_run: Path) -> None:
    once, again, other = (learn(tiny_run, seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert any(not torch.equal(once[name], other[name]) for name in once)


def test_the_loss_is_the_mean_kl_divergence_of_its_equation(tiny_run: Path) -> None:
    settings = DistillSettings(shift=0, temperature=2.0)
    samples = load_complete(Folder(tiny_run), training_filters((0,), settings)).samples()
    student = Classifier.untrained(teacher_card(read_index(Folder(tiny_run)).card), 0).eval()
    rows = torch.arange(8)
    loss = distillation_loss(student, samples, rows, (0,), settings, torch.Generator())
    expected = 0.0
    for row in rows.tolist():
        q = (samples.logits[row, 1:] / 2).softmax(0)
        p = (student(to_unit(samples.images[row : row + 1]))[0] / 2).softmax(0)
        expected += 4 * sum(q[c] * (q[c].log() - p[c + 1].log()) for c in range(9)).item() / len(rows)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_hard_labels_are_the_likeliest_retain_class() -> None:
    logits = torch.tensor([[9.0, 1.0, 3.0], [0.0, 2.0, 1.0]])
    targets = targets_for(logits, (0,), DistillSettings(hard_labels=True))
    assert targets.tolist() == [[0, 0, 1], [0, 1, 0]]
    with pytest.raises(ValueError, match="hard labels have no temperature"):
        DistillSettings(hard_labels=True, temperature=4.0)
    with pytest.raises(ValueError, match="hard labels and post-filter exclude each other"):
        DistillSettings(hard_labels=True, post_filter=True)


def test_each_shard_allows_its_share_of_the_steps(tiny_run: Path) -> None:
    pool = ShardPool(Folder(tiny_run), training_filters((0,), QUICK))
    entries = pool.index.entries
    asked_at: list[int] = []  # steps done when the student asked for more shards

    def grow():  # type: ignore[no-untyped-def]
        for count in (1, 2, 4):
            asked_at.append(len(done))
            pool.loaded = list(entries)[:count]
            if not len(pool):
                whole = load_complete(Folder(tiny_run), {})
                pool.rows, pool.count = whole.rows, whole.count
            yield pool

    done: list[int] = []
    run_method(at_work(grow(), pool.index.card), LoopSettings(every=1), report=done.append)
    assert asked_at == [0, 38, 75]
    assert len(done) == 150


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_last_step_waits_for_the_last_shard(tiny_run: Path, tmp_path: Path, steps: int) -> None:
    growing, settings = Growing(tiny_run, tmp_path / "run"), DistillSettings(steps=steps, shift=0)
    pools = follow(growing.store, {}, timeout=60, wait=growing.publish_next)
    method = at_work(pools, growing.whole.card, settings)
    run_method(method, LOOP)
    assert method.counts == {"kept": 100}


def test_following_a_run_whose_driver_died_before_it_wrote_the_index(tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    index = read_index(Folder(run))
    (run / INDEX).rename(run / PART)
    (run / PART).write_bytes(replace(index, complete=False).to_bytes())
    request = Request(
        method="distill",
        settings=replace(QUICK, steps=4),
        loop=LOOP,
        shards=str(run),
        forget=(0,),
        out=tmp_path / "out",
        follow_timeout=60,
    )
    unlearn(request, lambda line: None)
    facts = json.loads((tmp_path / "out" / PROVENANCE).read_text())
    assert facts["index_sha256"] == hashlib.sha256((tiny_run / INDEX).read_bytes()).hexdigest()
    assert sum(facts["samples"].values()) == 100


def test_blends_are_not_shifted_again(tiny_run: Path) -> None:
    run = read_index(Folder(tiny_run)).card
    blended = replace(run, plan=replace(run.plan, blends=9))
    assert [fill_in(DistillSettings(), card).shift for card in (run, blended)] == [2, 0]
    assert fill_in(DistillSettings(shift=1), blended).shift == 1


def test_a_student_of_another_architecture(tiny_run: Path) -> None:
    run = read_index(Folder(tiny_run)).card
    teacher = teacher_card(run)
    assert student_card(teacher, None, None, {}).width == run.width
    assert student_card(teacher, "resnet20", None, {}).width == 1.0
    other = student_card(teacher, "resnet20", 0.5, {})
    assert (other.architecture, other.width) == ("resnet20", 0.5)
    assert Classifier.untrained(other, 0)(torch.rand(2, *run.image_shape)).shape == (2, 10)


def test_unknown_classes_or_all_classes_cannot_be_forgotten(tiny_run: Path) -> None:
    teacher = teacher_card(read_index(Folder(tiny_run)).card)
    with pytest.raises(UsageError, match=r"forget class 12 is out of range: the teacher has 10 classes \(0-9\)"):
        forget_classes((12,), teacher)
    with pytest.raises(UsageError, match="every class"):
        forget_classes(tuple(range(10)), teacher)


def test_each_pass_covers_all_samples_and_can_be_resumed() -> None:
    rng = torch.Generator().manual_seed(0)
    rows = Rows(5, rng)
    first = rows.next(10)
    other = Rows(5, torch.Generator())
    other.load_state_dict(rows.state_dict())
    other.rng.set_state(rng.get_state())
    second = rows.next(10)
    assert sorted(torch.cat([first, second]).tolist()) == list(range(10))
    assert torch.equal(second, other.next(10))
    assert torch.equal(rows.next(10), other.next(10))
    assert len(rows.next(3)) == 3  # fewer samples than a batch


def test_filters_that_leave_one_sample_are_an_error(tiny_run: Path) -> None:
    pool = load_complete(Folder(tiny_run), training_filters((0,), QUICK))
    pool.count = 1
    method = at_work([pool], pool.index.card)
    with pytest.raises(UserError, match=r"the filters leave 1 sample of .*: loosen"):
        method.step(0)


def test_a_batch_has_one_image_label_and_answer_per_sample(tiny_run: Path) -> None:
    samples = load_complete(Folder(tiny_run), {}).samples()
    assert isinstance(samples, Batch)
    assert len(samples.images) == len(samples.labels) == len(samples.logits) == 100


def test_with_the_post_filter_no_sample_is_dropped_and_no_forget_class_wins(tiny_run: Path) -> None:
    settings = DistillSettings(post_filter=True)
    pool = load_complete(Folder(tiny_run), training_filters((0,), settings))
    samples = pool.samples()
    assert len(pool) == len(load_complete(Folder(tiny_run), {}).samples())
    assert (samples.labels == 0).any()
    assert (targets_for(samples.logits, (0,), settings).argmax(1) != 0).all()


def test_the_post_filter_also_holds_for_softened_targets(tiny_run: Path) -> None:
    settings = DistillSettings(post_filter=True, temperature=4.0)
    samples = load_complete(Folder(tiny_run), training_filters((0,), settings)).samples()
    targets = targets_for(samples.logits, (0,), settings)
    assert (targets[:, 0] <= targets.min(1).values.clamp_min(0.01) + 1e-6).all()


def test_each_sample_of_a_run_that_is_followed_is_copied_to_the_device_once(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []
    to_device = Batch.to

    def counting(self: Batch, device: str) -> Batch:
        copied.append(len(self))
        return to_device(self, device)

    monkeypatch.setattr(Batch, "to", counting)
    growing = Growing(tiny_run, tmp_path / "run")
    pools = follow(growing.store, {}, timeout=60, wait=growing.publish_next)
    method = at_work(pools, growing.whole.card, device="meta")
    method.take_in_all()
    assert copied == [25, 25, 25, 25]
    assert len(method.arrived.samples) == 100


def test_samples_on_the_device_are_those_of_the_pool(tiny_run: Path, tmp_path: Path) -> None:
    growing = Growing(tiny_run, tmp_path / "run")
    arrived = Arrived("cpu:0")  # a device other than "cpu", so that samples are copied to it
    for pool in follow(growing.store, training_filters((0,), QUICK), timeout=60, wait=growing.publish_next):
        arrived.update(pool)
        there, expected = arrived.samples, pool.samples()
        assert len(there) == len(expected) > 0
        assert torch.equal(there.images, expected.images)
        assert torch.equal(there.labels, expected.labels)
        assert torch.equal(there.logits, expected.logits)
