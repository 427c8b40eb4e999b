import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from synth.basics.errors import UsageError
from synth.checkpoint.classifier import Classifier, predict, to_unit
from synth.shards.index import INDEX, PART, read_index
from synth.shards.store import Folder
from tests.unlearn.shards import Growing, images_of, stream_of
from unlearn.methods.distill import LOOP, Distillation, distillation_loss, targets_for, training_filters
from unlearn.methods.distill_settings import DistillSettings, fill_in
from unlearn.methods.method import Inputs
from unlearn.methods.student import forget_classes, student_card, teacher_card
from unlearn.run.carry_out import Request, unlearn
from unlearn.run.folder import PROVENANCE
from unlearn.run.loop import run_method
from unlearn.samples.stream import Stream
from unlearn.settings import LoopSettings

QUICK = DistillSettings(steps=150, batch_size=32, shift=2)


def at_work(
    samples: Stream, settings: DistillSettings = QUICK, forget: tuple[int, ...] = (0,), seed: int = 0
) -> Distillation:
    card = student_card(teacher_card(samples.runs.card), None, None, {})
    return Distillation(Inputs(None, card, forget, seed, "cpu", samples), settings)


def learn(run: Path, forget: tuple[int, ...] = (0,), seed: int = 0, window: int | None = None) -> Classifier:
    samples = stream_of(run, filters=training_filters(forget, QUICK), seed=seed, window=window)
    return run_method(at_work(samples, forget=forget, seed=seed), LOOP).student


@pytest.mark.parametrize("window", [None, 1])
def test_the_student_learns_the_retain_classes_and_never_answers_a_forget_class(
    tiny_run: Path, window: int | None
) -> None:
    student, everything = learn(tiny_run, forget=(3, 8), window=window), images_of(tiny_run)
    forgotten = torch.isin(everything.labels, torch.tensor([3, 8]))
    kept = everything.images[~forgotten], everything.logits[~forgotten]
    agreement = (predict(student, kept[0]).argmax(1) == kept[1].argmax(1)).float().mean()
    assert agreement > 0.8
    assert not torch.isin(predict(student, everything.images).argmax(1), torch.tensor([3, 8])).any()


def test_the_same_seed_gives_the_same_student(tiny_run: Path) -> None:
    once, again, other = (learn(tiny_run, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert any(not torch.equal(once[name], other[name]) for name in once)


def test_the_loss_is_the_mean_kl_divergence_of_its_equation(tiny_run: Path) -> None:
    settings = DistillSettings(shift=0, temperature=2.0)
    batch = stream_of(tiny_run, filters=training_filters((0,), settings)).next(8)
    student = Classifier.untrained(teacher_card(read_index(Folder(tiny_run)).card), 0).eval()
    views = batch.views
    loss = distillation_loss(student, batch, (0,), settings, torch.Generator())
    expected = 0.0
    for row in range(8):
        q = (batch.logits[row, 1:] / 2).softmax(0)
        p = (student(to_unit(views[row : row + 1]))[0] / 2).softmax(0)
        expected += 4 * sum(q[c] * (q[c].log() - p[c + 1].log()) for c in range(9)).item() / 8
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_hard_labels_are_the_likeliest_retain_class() -> None:
    logits = torch.tensor([[9.0, 1.0, 3.0], [0.0, 2.0, 1.0]])
    targets = targets_for(logits, (0,), DistillSettings(hard_labels=True))
    assert targets.tolist() == [[0, 0, 1], [0, 1, 0]]
    with pytest.raises(ValueError, match="hard labels have no temperature"):
        DistillSettings(hard_labels=True, temperature=4.0)
    with pytest.raises(ValueError, match="hard labels and post-filter exclude each other"):
        DistillSettings(hard_labels=True, post_filter=True)


def test_each_shard_allows_its_share_of_the_steps(tiny_run: Path, tmp_path: Path) -> None:
    growing = Growing(tiny_run, tmp_path / "run")
    growing.publish_next(0)
    growing.publish_next(0)
    asked_at: list[int] = []  # steps done when the student asked for more shards

    def wait(seconds: float) -> None:
        asked_at.append(len(done))
        growing.publish_next(seconds)

    done: list[int] = []
    samples = stream_of(growing.store.path, filters=training_filters((0,), QUICK), follow=60, wait=wait)
    run_method(at_work(samples), LoopSettings(every=1), report=done.append)
    assert asked_at == [38, 75, 112]
    assert len(done) == 150


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_last_step_waits_for_the_last_shard(tiny_run: Path, tmp_path: Path, steps: int) -> None:
    growing, settings = Growing(tiny_run, tmp_path / "run"), DistillSettings(steps=steps, shift=0)
    growing.publish_next(0)
    samples = stream_of(growing.store.path, follow=60, wait=growing.publish_next)
    run_method(at_work(samples, settings), LOOP)
    assert samples.counts == {"kept": 300}


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
    assert sum(facts["samples"].values()) == 300


def test_views_are_not_shifted_again(tiny_run: Path) -> None:
    run = read_index(Folder(tiny_run)).card
    plain = replace(run, plan=replace(run.plan, views=0))
    assert [fill_in(DistillSettings(), card).shift for card in (plain, run)] == [2, 0]
    assert fill_in(DistillSettings(shift=1), run).shift == 1


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


def test_with_the_post_filter_no_sample_is_dropped_and_no_forget_class_wins(tiny_run: Path) -> None:
    settings = DistillSettings(post_filter=True)
    samples = stream_of(tiny_run, filters=training_filters((0,), settings))
    batch = samples.next(100)
    assert samples.counts == {"kept": 300}
    assert (batch.labels == 0).any()
    assert (targets_for(batch.logits, (0,), settings).argmax(1) != 0).all()


def test_the_post_filter_also_holds_for_softened_targets(tiny_run: Path) -> None:
    settings = DistillSettings(post_filter=True, temperature=4.0)
    batch = stream_of(tiny_run, filters=training_filters((0,), settings)).next(100)
    targets = targets_for(batch.logits, (0,), settings)
    assert (targets[:, 0] <= targets.min(1).values.clamp_min(0.01) + 1e-6).all()
