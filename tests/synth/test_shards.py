import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from synth.shards.images import encode_images
from synth.shards.index import read_index, read_shard
from synth.shards.plan import IMAGE_FORMATS
from synth.shards.read import decode_shard
from synth.shards.samples import Layout, Samples
from synth.shards.store import Folder
from synth.shards.views import draw_views
from synth.shards.write import encode_shard

KINDS = ("cls", "json", "logits.npy", "png", "views.npy")
SHAPE, CLASSES, VIEWS = (1, 6, 5), 3, 2


def some_samples(count: int = 3, shape: tuple[int, int, int] = SHAPE) -> Samples:
    random_values = np.random.default_rng(0)
    return Samples(
        keys=[f"{key:09d}" for key in range(40, 40 + count)],
        images=random_values.integers(0, 256, (count, *shape), dtype=np.uint8),
        labels=random_values.integers(0, CLASSES, count),
        logits=random_values.normal(size=(count, 1 + VIEWS, CLASSES)).astype(np.float16),
        views=draw_views(count, VIEWS, 40, shape[1:], 0.5, True, torch.Generator().manual_seed(0)).numpy(),
        records=[{"method": "m", "seed": 1, "confidence": 0.5, "entropy": float(k)} for k in range(count)],
    )


def tar_of(samples: Samples, image_format: str = "png") -> bytes:
    return encode_shard([(samples, encode_images(samples.images, image_format))], image_format)


@pytest.mark.parametrize("shape", [SHAPE, (3, 4, 7)])
def test_samples_survive_the_round_trip(shape: tuple[int, int, int]) -> None:
    samples = some_samples(5, shape)
    back = decode_shard(tar_of(samples), "s", Layout(shape, CLASSES, VIEWS))
    assert back.keys == samples.keys
    assert back.records == samples.records
    for name in ("images", "labels", "logits", "views"):
        np.testing.assert_array_equal(getattr(back, name), getattr(samples, name))
        assert getattr(back, name).dtype == getattr(samples, name).dtype


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 28, 28), (3, 64, 64)])
@pytest.mark.parametrize("count", [1, 2, 3, 50])
@pytest.mark.parametrize("image_format", IMAGE_FORMATS)
def test_a_shard_of_noise_stays_below_the_upper_bound(
    shape: tuple[int, int, int], count: int, image_format: str
) -> None:
    data = tar_of(some_samples(count, shape), image_format)
    assert len(data) <= Layout(shape, CLASSES, VIEWS, image_format).largest_shard(count)


def test_equal_samples_give_equal_bytes_without_time_or_owner() -> None:
    data = tar_of(some_samples())
    assert data == tar_of(some_samples())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    assert {m.mtime for m in members} == {0}
    assert len({(m.uid, m.gid, m.uname, m.gname, m.mode) for m in members}) == 1
    assert [m.name for m in members[:5]] == [f"000000040.{kind}" for kind in KINDS]


def test_plain_webdataset_reads_the_run(tiny_run: Path) -> None:
    expected = first_shard(tiny_run)
    dataset = webdataset.WebDataset(str(tiny_run / "shard-000000.tar"), shardshuffle=False).decode("rgb8")
    samples = list(dataset)
    assert [s["__key__"] for s in samples] == expected.keys
    assert [s["cls"] for s in samples] == expected.labels.tolist()
    np.testing.assert_array_equal(np.stack([s["png"][..., 0] for s in samples]), expected.images[:, 0])
    np.testing.assert_array_equal(np.stack([s["logits.npy"] for s in samples]), expected.logits)
    np.testing.assert_array_equal(np.stack([s["views.npy"] for s in samples]), expected.views)
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
    np.testing.assert_array_equal(np.stack([s[".views.npy"] for s in samples]), expected.views)
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
    np.testing.assert_array_equal(np.array(found[: len(expected)]["logits.npy"], dtype=np.float16), expected.logits)
    np.testing.assert_array_equal(np.array(found[: len(expected)]["views.npy"], dtype=np.int32), expected.views)
    assert found[: len(expected)]["json"] == expected.records


def first_shard(run: Path) -> Samples:
    store = Folder(run)
    index = read_index(store)
    return read_shard(store, index, index.entries[0])
