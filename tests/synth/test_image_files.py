"""Images from elsewhere: listed formats only, of bounded size, and one cause in words for each that is refused."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synth.basics.errors import UserError
from synth.basics.image_files import PHOTOS, UnreadableImageError, decode_image, read_image
from synth.shards.images import chunk, encode_pngs
from unlearn.data import load_images

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"


def png(width: int, height: int, *before_pixels: bytes) -> bytes:
    """A grey PNG without its pixels, which no test may get to, with further chunks."""
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    return head + b"".join(before_pixels) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", PHOTOS)
def test_the_formats_of_photos_are_read(kind: str) -> None:
    assert decode_image(encoded(kind)).size == (8, 8)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "TGA", "PCX"])
def test_other_formats_are_refused_and_no_program_is_started(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a program was started"))
    with pytest.raises(UnreadableImageError, match="it is damaged, or none of PNG, JPEG, WEBP, BMP, TIFF, GIF, PPM"):
        decode_image(POSTSCRIPT if kind == "EPS" else encoded(kind))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (png(1, 3_000_000), "1 x 3,000,000 pixels: one side is more than 100 times"),
        (png(20_000, 20_000), "it has more than 120,000,000 pixels"),
        (png(12_001, 10_000), "it has more than 120,000,000 pixels"),
        (png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24)))), "Decompressed data too large"),
        (png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2**24)))), "Decompressed data too large"),
        (png(8, 8, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**24)))), "it is damaged"),
        (png(8, 8), "it is damaged"),
        (b"", "none of"),
    ],
    ids=["thin", "large", "largest", "zTXt", "iTXt", "iCCP", "empty", "nothing"],
)
def test_bombs_are_refused_before_they_are_decoded(data: bytes, why: str) -> None:
    with pytest.raises(UnreadableImageError, match=why):
        decode_image(data)


def test_an_image_of_colour_numbers_without_their_colours_is_refused() -> None:
    head = struct.pack(">2I5B", 8, 8, 8, 3, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 9 * 8))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")
    with pytest.raises(UnreadableImageError, match="its palette of colours is missing"):
        decode_image(data)


@pytest.mark.parametrize("kind", PHOTOS)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_image_has_one_cause_whatever_pillow_raises(kind: str) -> None:
    whole, rng = encoded(kind), random.Random(0)
    for _ in range(60):
        data = bytearray(whole[: rng.randrange(1, len(whole))] if rng.random() < 0.5 else whole)
        for _ in range(rng.randrange(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with suppress(UnreadableImageError):
            decode_image(bytes(data))


def test_a_check_sees_the_image_before_its_pixels_are_decoded() -> None:
    def refuse(image: Image.Image) -> None:
        assert image.size == (4, 4)
        raise UserError("not this one")

    with pytest.raises(UserError, match="not this one"):
        decode_image(png(4, 4), ("PNG",), refuse)


def test_a_folders_image_that_is_none_is_named_in_one_line(tmp_path: Path) -> None:
    place = tmp_path / "train" / "a"
    place.mkdir(parents=True)
    (place / "a.png").write_bytes(next(encode_pngs(np.zeros((1, 3, 8, 8), np.uint8))))
    assert load_images(str(tmp_path), "train", shape=(3, 8, 8)).images.shape == (1, 3, 8, 8)
    for data, why in ((POSTSCRIPT, "none of PNG"), (png(1, 3_000_000), "one side"), (encoded("JPEG")[:200], "damaged")):
        (place / "b.png").write_bytes(data)
        with pytest.raises(UserError, match=f"cannot read the image .*b.png: .*{why}") as refused:
            load_images(str(tmp_path), "train", shape=(3, 8, 8))
        assert "\n" not in str(refused.value)
    (place / "b.png").unlink()
    os.mkfifo(place / "b.png")
    with pytest.raises(UserError, match=r"b.png: it is a pipe, not a file: save it again"):
        load_images(str(tmp_path), "train", shape=(3, 8, 8))
    with pytest.raises(OSError, match="it is a folder"):
        read_image(place)
