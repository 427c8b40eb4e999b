import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from synth.shards.index import read_index, read_shard
from synth.shards.read import decode_shard
from synth.shards.samples import Samples, largest_size
from synth.shards.store import Folder
from synth.shards.write import encode_shard

SHAPE, CLASSES = (1, 6, 5), 3


def some_samples(count: int = 3, shape: tuple[int, int, int] = SHAPE) -> Samples:
    random_values = np.random.default_rng(0)
    return Samples(
        keys=[f"{key:09d}" for key in range(40, 40 + count)],
        images=random_values.integers(0, 256, (count, *shape), dtype=np.uint8),
        labels=random_values.integers(0, CLASSES, count),
        logits=random_values.normal(size=(count, CLASSES)).astype(np.float32),
        records=[{"method": "m", "seed": 1, "confidence": 0.5, "entropy": float(k)} for k in range(count)],
    )


@pytest.mark.parametrize("shape", [SHAPE, (3, 4, 7)])
def test_samples_survive_the_round_trip(shape: tuple[int, int, int]) -> None:
    samples = some_samples(5, shape)
    back = decode_shard(encode_shard([samples]), "s", shape, CLASSES)
    assert back.keys == samples.keys
    assert back.records == samples.records
    for name in ("images", "labels", "logits"):
        np.testing.assert_array_equal(getattr(back, name), getattr(samples, name))
        assert getattr(back, name).dtype == getattr(samples, name).dtype


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (3, 64, 64)])
@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_a_shard_of_noise_stays_below_the_upper_bound(shape: tuple[int, int, int], count: int) -> None:
    samples = some_samples(count, shape)
    assert len(encode_shard([samples])) <= largest_size(count, shape, CLASSES)


def test_equal_samples_give_equal_bytes_without_time_or_owner() -> None:
    data = encode_shard([some_samples()])
    assert data == encode_shard([some_samples()])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    assert {m.mtime for m in members} == {0}
    assert len({(m.uid, m.gid, m.uname, m.gname, m.mode) for m in members}) == 1
    assert [m.name for m in members[:4]] == [f"000000040.{kind}" for kind in ("cls", "json", "logits.npy", "png")]


def test_plain_webdataset_reads_the_run(tiny_run: Path) -> None:
    expected = first_shard(tiny_run)
    dataset = webdataset.WebDataset(str(tiny_run / "shard-000000.tar"), shardshuffle=False).decode("rgb8")
    samples = list(dataset)
    assert [s["__key__"] for s in samples] == expected.keys
    assert [s["cls"] for s in samples] == expected.labels.tolist()
    np.testing.assert_array_equal(np.stack([s["png"][..., 0] for s in samples]), expected.images[:, 0])
    np.testing.assert_array_equal(np.stack([s["logits.npy"] for s in samples]), expected.logits)
    assert [s["json"] for s in samples] == expected.records


@pytest.mark.filterwarnings("ignore:String specifications")
def test_wids_reads_the_run_by_its_index(tiny_run: Path, tmp_path: Path) -> None:
    wids = pytest.importorskip("wids")
    dataset = wids.ShardListDataset(str(tiny_run / "index.json"), cache_dir=str(tmp_path))
    expected, count = first_shard(tiny_run), len(first_shard(tiny_run))
    assert len(dataset) == read_index(Folder(tiny_run)).samples
    samples = [dataset[row] for row in range(count)]
    assert [s["__key__"] for s in samples] == expected.keys
    assert [s[".cls"] for s in samples] == expected.labels.tolist()
    np.testing.assert_array_equal(np.stack([s[".logits.npy"] for s in samples]), expected.logits)
    np.testing.assert_array_equal(np.stack([np.asarray(s[".png"]) for s in samples]), expected.images[:, 0])


def test_hugging_face_datasets_reads_the_run_offline(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    datasets = pytest.importorskip("datasets")
    files = f"{tiny_run}/shard-*.tar"
    found = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path))
    expected = first_shard(tiny_run)
    assert len(found) == read_index(Folder(tiny_run)).samples
    assert found["__key__"][: len(expected)] == expected.keys
    assert found["cls"][: len(expected)] == expected.labels.tolist()
    pixels = np.stack([np.asarray(image) for image in found[: len(expected)]["png"]])
    np.testing.assert_array_equal(pixels, expected.images[:, 0])
    np.testing.assert_array_equal(np.array(found[: len(expected)]["logits.npy"], dtype=np.float32), expected.logits)
    assert found[: len(expected)]["json"] == expected.records


def first_shard(run: Path) -> Samples:
    store = Folder(run)
    index = read_index(store)
    return read_shard(store, index, index.entries[0])
