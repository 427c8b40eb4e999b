"""Several trainers on one run: each sample once per epoch, equal numbers of steps, no hang."""

from __future__ import annotations

import pickle
import shutil
import threading
import time
from collections import Counter
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.utils.data import DataLoader

from synth.basics.errors import UserError
from synth.shards.index import INDEX, PART, read_index, read_shard
from synth.shards.store import Folder
from tests.unlearn.shards import rows, stream_of
from unlearn.samples.filters import (
    EntropyBelow,
    Filter,
    ForgetShareBelow,
    HeldOut,
    NoForgetLabel,
    NotHeldOut,
)
from unlearn.samples.loader import ShardLoader, WeightedBatch


def seen(batches: list[WeightedBatch]) -> Counter[bytes]:
    """How often each sample was seen. A sample is known by its logits, which no other sample has."""
    return Counter(row.numpy().tobytes() for b in batches for row in b.logits[b.weights == 1])


def everything(run: Path) -> Counter[bytes]:
    store = Folder(run)
    index = read_index(store)
    shards = [read_shard(store, index, entry) for entry in index.entries.values()]
    return Counter(row for samples in shards for row in rows(torch.from_numpy(samples.logits).flatten(0, 1).float()))


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 3), (2, 0), (3, 0), (3, 2), (7, 0)])
def test_each_sample_comes_once_per_epoch_and_all_trainers_get_equally_many_batches(
    tiny_run: Path, ranks: int, workers: int
) -> None:
    for epoch in (0, 1):
        epochs = []
        for rank in range(ranks):
            loader = ShardLoader(str(tiny_run), 8, rank=rank, world_size=ranks)
            loader.set_epoch(epoch)
            epochs.append(list(DataLoader(loader, batch_size=None, num_workers=workers)))
        assert seen([batch for batches in epochs for batch in batches]) == everything(tiny_run)
        assert len({len(batches) for batches in epochs}) == 1
        assert {tuple(b.images.shape) for batches in epochs for b in batches} == {(8, 1, 28, 28)}


def test_epochs_differ_and_repeat_with_their_seed(tiny_run: Path) -> None:
    def order(epoch: int, seed: int) -> list[bytes]:
        loader = ShardLoader(str(tiny_run), 10, seed=seed)
        loader.set_epoch(epoch)
        return [row.numpy().tobytes() for batch in loader for row in batch.logits]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(1, 1)
    assert order(0, 1) != order(0, 2)


def test_loader_workers_that_live_for_several_epochs_follow_set_epoch(tiny_run: Path) -> None:
    loader = ShardLoader(str(tiny_run), 10)
    lasting = DataLoader(loader, batch_size=None, num_workers=2, persistent_workers=True)
    for epoch in (0, 1, 2):
        loader.set_epoch(epoch)
        fresh = ShardLoader(str(tiny_run), 10)
        fresh.set_epoch(epoch)
        expected = list(DataLoader(fresh, batch_size=None, num_workers=2))
        for batch, same in zip(lasting, expected, strict=True):
            assert torch.equal(batch.logits, same.logits)


def test_set_epoch_does_not_change_an_iteration_that_has_begun(tiny_run: Path) -> None:
    loader, undisturbed = (ShardLoader(str(tiny_run), 10) for _ in range(2))
    batches = iter(loader)
    first = next(batches)
    loader.set_epoch(1)
    assert all(torch.equal(a.logits, b.logits) for a, b in zip([first, *batches], undisturbed, strict=True))


@pytest.mark.parametrize(
    "filter",
    [NoForgetLabel((0,)), ForgetShareBelow((0,), 0.2), EntropyBelow(2.0), NotHeldOut(0.1), HeldOut(0.5)],
)
def test_a_loader_with_a_filter_can_be_sent_to_a_process_that_is_not_forked(tiny_run: Path, filter: Filter) -> None:
    loader = ShardLoader(str(tiny_run), 8, filters={"filter": filter})
    loader.set_epoch(3)
    sent = pickle.loads(ForkingPickler.dumps(loader))
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(sent, loader, strict=True))


def test_padding_takes_the_place_of_filtered_samples(tiny_run: Path) -> None:
    loaders = [
        ShardLoader(str(tiny_run), 8, rank=r, world_size=3, filters={"label": NoForgetLabel((0, 1))}) for r in range(3)
    ]
    epochs = [list(loader) for loader in loaders]
    assert len({len(batches) for batches in epochs}) == 1
    kept = [label for batches in epochs for b in batches for label in b.labels[b.weights == 1].tolist()]
    stream = stream_of(tiny_run, filters={"label": NoForgetLabel((0, 1))})
    stream.next(1)
    assert len(kept) == stream.counts["kept"]
    assert set(kept) == set(range(2, 10))


def test_a_shard_that_never_comes_ends_the_iteration_with_an_error(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    grow(tiny_run, run, upto=2)
    with pytest.raises(UserError, match="was not published within"):
        list(ShardLoader(str(run), 8, timeout=0.01, wait=lambda seconds: None))
    with pytest.raises(UserError, match="there is no run"):
        list(ShardLoader(str(tmp_path / "none"), 8, timeout=0.01, wait=lambda seconds: None))


def test_a_rank_out_of_range_is_refused(tiny_run: Path) -> None:
    with pytest.raises(ValueError, match="rank 2 must be 0 or more and below the world size 2"):
        ShardLoader(str(tiny_run), 8, rank=2, world_size=2)


def grow(source: Path, target: Path, upto: int | None = None, pause: float = 0.0) -> None:
    """Publish a run's shards one after the other, out of order, as a driver would."""
    whole, store = read_index(Folder(source)), Folder(target)
    store.create()
    entries = {}
    for number in [3, 0, 2, 1][:upto]:
        shutil.copy(source / whole.entries[number].name, target)
        entries[number] = whole.entries[number]
        store.write(PART, replace(whole, entries=entries, complete=False).to_bytes())
        time.sleep(pause)
    if upto is None:
        store.write(INDEX, whole.to_bytes())


def train(rank: int, run: str, folder: str) -> None:
    """A data-parallel trainer. It saves which samples it saw, its number of steps and its weights."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = ShardLoader(run, 8, rank=rank, world_size=2, timeout=60, wait=lambda seconds: time.sleep(0.05))
    batches = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        for batch in DataLoader(loader, batch_size=None):
            losses = F.kl_div(model(batch.images / 255).log_softmax(1), batch.logits.softmax(1), reduction="none").sum(
                1
            )
            total = batch.weights.sum()
            dist.all_reduce(total)
            optimiser.zero_grad()
            ((batch.weights * losses).sum() * dist.get_world_size() / total.clamp(min=1)).backward()
            optimiser.step()
            batches.append(batch)
    torch.save((seen(batches), len(batches), [p.detach() for p in model.parameters()]), f"{folder}/{rank}.pt")
    dist.barrier()  # gloo may abort a rank that leaves while another still works
    dist.destroy_process_group()


def test_two_processes_train_on_a_growing_run_without_hanging(tiny_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    driver = threading.Thread(target=grow, args=(tiny_run, run), kwargs={"pause": 0.3})
    driver.start()
    mp.spawn(train, (str(run), str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    driver.join()
    (seen_0, steps_0, weights_0), (seen_1, steps_1, weights_1) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1)
    )
    assert seen_0 + seen_1 == Counter({key: 2 * count for key, count in everything(tiny_run).items()})
    assert steps_0 == steps_1
    assert all(torch.equal(a, b) for a, b in zip(weights_0, weights_1, strict=True))
