import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from webdataset import TarWriter

from synth.shards.images import decode_file, encode_jpegs, encode_pngs, usual_format
from synth.shards.samples import Samples
from synth.shards.write import encode_npy, encode_shard
from tests.synth.test_shards import some_samples, tar_of


def by_webdataset(samples: Samples) -> bytes:
    buffer = io.BytesIO()
    with TarWriter(buffer, mtime=0, encoder=True) as tar:
        pngs = encode_pngs(samples.images)
        for key, png, label, logits, views, record in zip(
            samples.keys, pngs, samples.labels, samples.logits, samples.views, samples.records, strict=True
        ):
            sample = {
                "__key__": key,
                "cls": str(label).encode(),
                "png": png,
                "logits.npy": saved(logits),
                "views.npy": saved(views),
            }
            tar.write({**sample, "json": dict(sorted(record.items()))})
    return buffer.getvalue()


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0))
    return buffer.getvalue()


@pytest.mark.parametrize("count", [1, 3, 25])
def test_the_tar_is_webdatasets_byte_by_byte(count: int) -> None:
    assert tar_of(some_samples(count)) == by_webdataset(some_samples(count))


def test_a_shard_in_parts_has_the_bytes_of_the_whole() -> None:
    whole = some_samples(7)
    parts = [
        dataclasses.replace(whole, **{name: getattr(whole, name)[rows] for name in vars(whole)})
        for rows in (slice(0, 4), slice(4, 7))
    ]
    assert encode_shard((part, encode_pngs(part.images)) for part in parts) == tar_of(whole)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 7), (1, 1, 1), (3, 64, 3)])
def test_pillow_reads_every_pixel_back(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    for image, png in zip(images, encode_pngs(images), strict=True):
        with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
            opened.verify()
        with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
            pixels = np.asarray(opened)
        np.testing.assert_array_equal(pixels[None] if shape[0] == 1 else pixels.transpose(2, 0, 1), image)


def test_logits_are_plain_npy() -> None:
    values = np.random.default_rng(0).normal(size=(7, 2)).astype(">f4")  # the other order of bytes
    found = np.load(io.BytesIO(encode_npy(values)), allow_pickle=False)
    np.testing.assert_array_equal(found, values)
    assert found.dtype == "<f4"


def test_an_error_in_the_next_part_is_raised() -> None:
    def failing():  # type: ignore[no-untyped-def]
        yield some_samples(2), encode_pngs(some_samples(2).images)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        encode_shard(failing())


@pytest.mark.parametrize(("shape", "expected"), [((3, 96, 96), "jpg"), ((3, 224, 95), "png"), ((1, 28, 28), "png")])
def test_large_images_are_jpegs_unless_told_otherwise(shape: tuple[int, int, int], expected: str) -> None:
    assert usual_format(shape) == expected


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_nearly_the_image_and_the_same_bytes_each_time(channels: int) -> None:
    ramp = np.linspace(0, 255, 40 * 50).reshape(1, 1, 40, 50).repeat(channels, 1).astype(np.uint8)
    (first,), (again,) = encode_jpegs(ramp), encode_jpegs(ramp)
    assert first == again
    pixels = decode_file(first, (channels, 40, 50), "jpg")
    assert np.abs(pixels.astype(int) - ramp[0]).max() <= 4
