"""Samples from shards, in memory or in windows: each image once per epoch, and the same samples after a resume."""

import io
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from synth.basics.errors import UsageError, UserError
from synth.checkpoint.classifier import Classifier
from synth.shards.index import INDEX, read_index, read_shard
from synth.shards.plan import Plan
from synth.shards.store import Folder
from synth.shards.views import compose
from tests.runs import QUICKEST, make_run, recipe_for
from tests.unlearn.shards import Growing, epochs, images_of, rows, stream_of
from unlearn.samples.batch import Batch
from unlearn.samples.filters import ForgetShareBelow, NoForgetLabel
from unlearn.samples.hold_out import hold_out
from unlearn.samples.memory import Share
from unlearn.samples.runs import Runs, wait_for_runs
from unlearn.samples.stream import Stream

WAYS = [None, 1, 2, 3]  # windows of the small run's shards; None is the whole run in memory


@pytest.fixture(scope="session")
def viewed_run(tmp_path_factory: pytest.TempPathFactory, tiny_teacher: Classifier) -> Path:
    """A complete run of 60 images in 7 shards, each with 3 views."""
    path = tmp_path_factory.mktemp("runs") / "viewed"
    make_run(
        path, recipe_for(tiny_teacher, QUICKEST), Plan(classes=tuple(range(10)), per_class=6, shard_size=9, views=3)
    )
    return path


@pytest.mark.parametrize("window", WAYS)
def test_each_image_comes_once_per_epoch_and_in_1_v_epochs_as_itself_and_each_of_its_views(
    viewed_run: Path, window: int | None
) -> None:
    found = epochs(stream_of(viewed_run, window=window), 60, 8)
    for epoch in found:
        assert len(set(epoch.ids.tolist())) == 60
    for start in (0, 4):
        samples = Counter(logits for epoch in found[start : start + 4] for logits in rows(epoch.logits))
        assert set(samples.values()) == {1}
        assert len(samples) == 60 * 4


@pytest.mark.parametrize("window", [None, 2])
def test_a_sample_is_the_view_that_the_teacher_labelled(
    viewed_run: Path, tiny_teacher: Classifier, window: int | None
) -> None:
    batch = stream_of(viewed_run, window=window).next(60)
    with torch.no_grad():
        answers = tiny_teacher(batch.views.float() / 255)
    assert torch.allclose(answers, batch.logits, atol=0.02)
    assert batch.logits.argmax(1).tolist() == answers.argmax(1).tolist()
    store = Folder(viewed_run)
    index = read_index(store)
    known = {
        image: label
        for entry in index.entries.values()
        for samples in [read_shard(store, index, entry)]
        for image, label in zip(rows(torch.from_numpy(samples.images)), samples.labels.tolist(), strict=True)
    }
    assert [known[image] for image in rows(batch.own)] == batch.labels.tolist()


@pytest.mark.parametrize("window", WAYS)
def test_the_order_depends_on_the_seed_and_the_window_only(viewed_run: Path, window: int | None) -> None:
    def order(seed: int, ahead: int = 1, follow: float | None = None, size: int = 7) -> list[int]:
        stream = stream_of(viewed_run, window=window, ahead=ahead, seed=seed, follow=follow)
        return [image for _ in range(140 // size) for image in stream.next(size).ids.tolist()]

    assert order(0) == order(0, ahead=3) == order(0, size=35) != order(1)
    first = order(0)
    assert first[:60] != sorted(first[:60])
    assert first[:60] != first[60:120]


@pytest.mark.parametrize("window", WAYS)
@pytest.mark.parametrize("steps", [0, 1, 7, 11, 25])
def test_a_stream_that_is_restored_goes_on_as_if_it_had_not_stopped(
    viewed_run: Path, window: int | None, steps: int
) -> None:
    filters = {"label": NoForgetLabel((0,))}
    whole, begun, resumed = (stream_of(viewed_run, window=window, filters=filters) for _ in range(3))
    for _ in range(steps):
        whole.next(8)
        begun.next(8)
    saved = io.BytesIO()
    torch.save(begun.state_dict(), saved)
    saved.seek(0)
    begun.next(8)  # later steps do not change what was saved
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    for _ in range(15):
        expected, found = whole.next(8), resumed.next(8)
        assert torch.equal(expected.ids, found.ids)
        assert torch.equal(expected.views, found.views)
        assert torch.equal(expected.logits, found.logits)
    assert whole.counts == resumed.counts


@pytest.mark.parametrize("window", WAYS)
def test_samples_with_a_forget_class_never_come_and_are_counted(viewed_run: Path, window: int | None) -> None:
    stream = stream_of(viewed_run, window=window, filters={"label": NoForgetLabel((3, 8))})
    found = epochs(stream, 48, 4, size=6)
    for epoch in found:
        assert len(set(epoch.ids.tolist())) == 48
        assert not {3, 8} & set(epoch.labels.tolist())
    partners = images_of(viewed_run)
    forgotten = {
        row for row, label in zip(rows(partners.images), partners.labels.tolist(), strict=True) if label in (3, 8)
    }
    for epoch in found:
        mixed = epoch.recipes[:, 1] < 256
        assert not forgotten & set(rows(epoch.partners[mixed]))
    counts = stream.counts
    assert counts["kept"] + counts["label"] == 240
    assert counts["label"] >= 48


def test_a_window_is_in_memory_at_once_with_the_next_one_and_no_more(viewed_run: Path) -> None:
    stream = stream_of(viewed_run, window=2, ahead=2)
    assert len(stream.room.images) == 4 * 9
    for _ in range(40):
        stream.next(9)
        assert len(stream.room.coming) <= 4


def test_images_of_a_window_are_shuffled_together(viewed_run: Path) -> None:
    stream = stream_of(viewed_run, window=3)
    for _ in range(2):  # the first epoch begins with smaller windows
        order = [image // 9 for image in epochs(stream, 60, 1)[0].ids.tolist()]
    first = order[:20]
    assert len(set(first)) == 3
    assert first != sorted(first)


def test_a_run_that_is_followed_gives_every_image_and_the_last_step_waits_for_the_last_shard(
    viewed_run: Path, tmp_path: Path
) -> None:
    for window in WAYS:
        for steps in (1, 2, 9, 60):
            growing = Growing(viewed_run, tmp_path / f"{window}-{steps}", order=[3, 0, 6, 1, 5, 2, 4])
            wait = growing.publish_next
            runs = wait_for_runs([growing.store], 60, wait)
            share = Share(7, 7, 1) if window is None else Share(window, window + 1, 1)
            stream = Stream(runs, {}, share, follow=60, wait=wait)
            seen: set[int] = set()
            for step in range(1, steps + 1):
                stream.provide_for(step, steps)
                assert len(stream.at.known) / 7 >= min(step / steps, 6 / 7) - 0.5 / steps
                assert stream.whole or step < steps
                seen.update(stream.next(12).ids.tolist())
            assert stream.whole
            if steps == 60:
                assert len(seen) == 60


def test_a_run_that_is_complete_gives_the_same_samples_when_it_is_followed(viewed_run: Path) -> None:
    for window in WAYS:
        usual, followed = stream_of(viewed_run, window=window), stream_of(viewed_run, window=window, follow=60.0)
        for step in range(12):
            followed.provide_for(step + 1, 12)
            assert torch.equal(usual.next(9).ids, followed.next(9).ids)


def test_a_resumed_run_that_grew_meanwhile_takes_in_the_new_shards(viewed_run: Path, tmp_path: Path) -> None:
    growing = Growing(viewed_run, tmp_path / "run")
    growing.publish_next(0)
    growing.publish_next(0)

    def opened() -> Stream:
        return stream_of(growing.store.path, follow=60, wait=growing.publish_next)

    begun = opened()
    begun.provide_for(1, 7)
    begun.next(6)
    growing.publish_next(0)
    resumed = opened()
    resumed.load_state_dict(begun.state_dict())
    assert len(resumed.at.known) == 1
    resumed.provide_for(7, 7)
    assert set(resumed.next(54).ids.tolist()) | set(begun.next(3).ids.tolist()) >= set(range(9, 15))


def test_following_gives_up_if_no_shard_comes(viewed_run: Path, tmp_path: Path) -> None:
    growing = Growing(viewed_run, tmp_path / "run")
    growing.publish_next(0)
    growing.publish_next(0)
    stream = stream_of(growing.store.path, follow=0.01, wait=lambda _: None)
    stream.provide_for(1, 14)
    with pytest.raises(UserError, match=r"1 of 7 shards and got none for 0\.01 s"):
        stream.provide_for(9, 14)


def test_an_incomplete_run_is_refused_without_follow(tiny_run: Path, tmp_path: Path) -> None:
    growing = Growing(tiny_run, tmp_path / "run")
    growing.publish_next(0)
    with pytest.raises(UserError, match="0 of 4 shards: train while they are being made with --follow"):
        Runs([growing.store]).refuse_incomplete()


@pytest.mark.parametrize("window", [None, 1])
def test_an_error_names_the_filter_that_dropped_every_sample(tiny_run: Path, window: int | None) -> None:
    stream = stream_of(tiny_run, window=window, filters={"gate": ForgetShareBelow((0,), 1e-12)})
    with pytest.raises(UserError, match=r"the filters dropped all 300 samples .* \(gate 300\): loosen the filter"):
        stream.next(8)


@pytest.mark.parametrize("window", [None, 1])
def test_filters_that_leave_one_sample_are_an_error(tiny_run: Path, window: int | None) -> None:
    one = images_of(tiny_run).logits[42]
    stream = stream_of(tiny_run, window=window, filters={"one": lambda view: (view.logits == one).all(1)})
    with pytest.raises(UserError, match=r"the filters leave 1 sample of .*: loosen"):
        stream.next(8)


@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_or_missing_shard_stops_the_training_in_one_line(
    tiny_run: Path, tmp_path: Path, window: int | None, damage: str
) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    shard = run / "shard-000002.tar"
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content) if damage == "flipped" else shard.unlink()
    stream = stream_of(run, window=window)
    with pytest.raises(UserError, match=r"shard-000002\.tar is (damaged|missing)") as caught:
        epochs(stream, 100, 2)
    assert "\n" not in str(caught.value)


def test_stored_answers_are_read_as_written(tiny_run: Path) -> None:
    store = Folder(tiny_run)
    index = read_index(store)
    first = read_shard(store, index, index.entries[0])
    assert torch.equal(images_of(tiny_run).logits[:25], torch.from_numpy(first.logits[:, 0]).float())


def test_a_run_that_is_too_large_for_the_memory_has_a_bounded_hold_out(viewed_run: Path) -> None:
    runs = Runs([Folder(viewed_run)])
    whole = hold_out(runs, {}, 1.0, 2**30)
    part = hold_out(runs, {}, 1.0, 4 * 2 * 9 * 1000)
    assert len(whole) == 60
    assert 8 <= len(part) <= 18
    assert set(rows(part.images)) < set(rows(whole.images))


def other_run(path: Path, teacher: Classifier, **changes: Any) -> Path:
    plan: dict[str, Any] = {"classes": tuple(range(10)), "per_class": 2, "shard_size": 7, "views": 1, **changes}
    make_run(path, recipe_for(teacher, QUICKEST), Plan(**plan))
    return path


@pytest.mark.parametrize("window", [None, 2])
def test_joined_runs_give_each_image_of_each_once_per_epoch(
    viewed_run: Path, tmp_path: Path, tiny_teacher: Classifier, window: int | None
) -> None:
    other = other_run(tmp_path / "other", tiny_teacher, seed=1)
    stream = stream_of(viewed_run, other, window=window)
    expected = Counter(rows(images_of(viewed_run).images) + rows(images_of(other).images))
    for epoch in epochs(stream, 80, 4):
        assert Counter(rows(epoch.own)) == expected
        with torch.no_grad():
            answers = tiny_teacher(epoch.views.float() / 255)
        assert torch.allclose(answers, epoch.logits, atol=0.02)
    assert stream.counts == {"kept": 60 * 4 + 20 * 2}


def test_runs_that_do_not_fit_together_are_refused_by_their_difference(
    viewed_run: Path, tmp_path: Path, tiny_teacher: Classifier
) -> None:
    again = Folder(shutil.copytree(viewed_run, tmp_path / "again"))
    with pytest.raises(UsageError, match=r"again and .*viewed are the same run: name each run once"):
        Runs([Folder(viewed_run), again])
    index = read_index(again)
    for field, value, name in (
        ("teacher_sha256", "0" * 64, "teacher"),
        ("image_shape", (1, 28, 32), "image shape"),
        ("class_names", tuple("abcdefghij"), "class names"),
        ("mean", (0.1,), "normalisation"),
    ):
        again.write(INDEX, replace(index, card=replace(index.card, **{field: value})).to_bytes())
        with pytest.raises(UsageError, match=f"again has another {name} than .*viewed: join only runs of one teacher"):
            Runs([Folder(viewed_run), again])


def test_a_batch_without_mixed_views_has_no_partners_of_its_own(tmp_path: Path, tiny_teacher: Classifier) -> None:
    batch = stream_of(other_run(tmp_path / "run", tiny_teacher, views=0)).next(20)
    assert batch.partners is batch.own
    assert torch.equal(batch.views, batch.own)
    assert torch.equal(compose(batch.own, torch.zeros_like(batch.own), batch.recipes), batch.own)


def test_a_batch_is_copied_to_another_device_without_its_recipes(viewed_run: Path) -> None:
    batch = stream_of(viewed_run).next(6)
    there = batch.to("meta")
    assert isinstance(there, Batch)
    assert {there.own.device.type, there.partners.device.type, there.logits.device.type} == {"meta"}
    assert there.recipes.device.type == "cpu"
    assert batch.to("cpu") is batch
