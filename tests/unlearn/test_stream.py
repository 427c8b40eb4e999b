import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from synth.basics.errors import UserError
from synth.shards.index import INDEX, PART, Index, read_index, read_shard
from synth.shards.store import Folder
from unlearn.samples import decoding
from unlearn.samples.filters import ForgetShareBelow, NoForgetLabel
from unlearn.samples.pool import check_memory
from unlearn.samples.stream import follow, load_complete


class Growing:
    """A run that gets one more shard each time that somebody waits for it."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.store = source, Folder(target)
        self.whole = read_index(Folder(source))
        self.published = 0
        self.store.create()

    def publish_next(self, _seconds: float) -> None:
        entries = dict(list(self.whole.entries.items())[: self.published])
        if self.published <= len(self.whole.entries):
            for entry in entries.values():
                shutil.copy(self.source / entry.name, self.store.path)
            self.store.write(PART, replace(self.whole, entries=entries, complete=False).to_bytes())
            self.published += 1
        else:
            self.store.write(INDEX, self.whole.to_bytes())
            self.store.remove(PART)


def test_each_sample_of_a_complete_run_is_loaded_once_and_filtered(tiny_run: Path) -> None:
    pool = load_complete(Folder(tiny_run), {"label": NoForgetLabel((0,))})
    samples = pool.samples()
    assert pool.dropped == {"label": 10}
    assert sorted(samples.labels.tolist()) == sorted(list(range(1, 10)) * 10)
    assert samples.images.dtype == torch.uint8


def test_following_a_growing_run_sees_every_sample_once(tiny_run: Path, tmp_path: Path) -> None:
    growing = Growing(tiny_run, tmp_path / "run")
    sizes = []
    for pool in follow(growing.store, {}, timeout=60, wait=growing.publish_next):
        sizes.append(len(pool))
        followed = pool
    whole = load_complete(Folder(tiny_run), {}).samples()
    assert sizes == [25, 50, 75, 100]
    assert torch.equal(followed.samples().images, whole.images)
    assert torch.equal(followed.samples().logits, whole.logits)


def test_decoding_in_processes_gives_the_same_samples_in_the_same_order(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = load_complete(Folder(tiny_run), {}).samples()
    monkeypatch.setattr(decoding, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    there = load_complete(Folder(tiny_run), {}).samples()
    assert torch.equal(here.images, there.images)
    assert torch.equal(here.logits, there.logits)


def test_a_missing_shard_is_an_error_of_one_line_from_another_process_too(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "WORTH_A_PROCESS", 1)
    run = shutil.copytree(tiny_run, tmp_path / "run")
    (run / "shard-000001.tar").unlink()
    with pytest.raises(UserError, match=r"shard-000001\.tar is missing") as caught:
        load_complete(Folder(run), {})
    assert "\n" not in str(caught.value)


def test_following_gives_up_if_no_shard_comes(tiny_run: Path, tmp_path: Path) -> None:
    growing = Growing(tiny_run, tmp_path / "run")
    growing.publish_next(0)
    growing.publish_next(0)
    with pytest.raises(UserError, match="1 of 4 shards"):
        list(follow(growing.store, {}, timeout=0.01, wait=lambda _: None))


def test_an_incomplete_run_is_refused_without_follow(tiny_run: Path, tmp_path: Path) -> None:
    growing = Growing(tiny_run, tmp_path / "run")
    growing.publish_next(0)
    with pytest.raises(UserError, match="0 of 4 shards: train while they are being made with --follow"):
        load_complete(growing.store, {})


def test_an_error_names_the_filter_that_dropped_every_sample(tiny_run: Path) -> None:
    with pytest.raises(UserError, match=r"the filters dropped all 100 samples .* \(gate 100\): loosen the filter"):
        load_complete(Folder(tiny_run), {"gate": ForgetShareBelow((0,), 1e-12)})


def test_a_flipped_byte_stops_the_training(tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    shard = run / "shard-000002.tar"
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"shard-000002\.tar is damaged"):
        load_complete(Folder(run), {})


def test_a_run_larger_than_memory_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    index = read_index(Folder(tiny_run))
    plan = replace(index.card.plan, per_class=99_000_000, shard_size=1_000_000)
    store = Folder(tmp_path)
    store.write(PART, Index(replace(index.card, plan=plan), {}, complete=False).to_bytes())
    with pytest.raises(UserError, match="GiB of memory"):
        load_complete(store, {})


def test_the_logits_count_towards_the_memory(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = read_index(Folder(tiny_run))
    pixels, logits = 100 * 28 * 28, 100 * 4 * 10_000
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": pixels + logits}.__getitem__)
    check_memory(index)
    many = replace(index.card, class_names=tuple(map(str, range(10_000))))
    with pytest.raises(UserError, match="the run's 100 samples take"):
        check_memory(replace(index, card=many))


def test_stored_logits_are_read_as_written(tiny_run: Path) -> None:
    store = Folder(tiny_run)
    index = read_index(store)
    first = read_shard(store, index, index.entries[0])
    assert torch.equal(load_complete(store, {}).samples().logits[:25], torch.from_numpy(first.logits))
