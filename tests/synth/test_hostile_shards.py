"""Shards from elsewhere: whatever their bytes are, decoding returns samples or raises a UserError that names the
shard.
"""

import io
import os
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import PngImagePlugin

from synth.basics.errors import UserError
from synth.shards.images import encode_images
from synth.shards.read import DamagedShardError, decode_shard, foreign_header, our_header
from synth.shards.samples import Layout, Samples
from synth.shards.view_recipes import (
    COLUMNS,
    DOWN,
    HEIGHT,
    LEFT,
    MIRRORED,
    PARTNER,
    PARTNER_DOWN,
    PARTNER_RIGHT,
    RIGHT,
    SHARE,
    TOP,
    WIDTH,
)
from synth.shards.write import encode_npy
from tests.synth.test_shards import CLASSES, SHAPE, VIEWS, some_samples
from tests.synth.test_shards import tar_of as whole_shard

RECORD = b'{"confidence": 0.9, "entropy": 0.1, "method": "m", "seed": 1}'


def member(name: str, content: bytes, **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in changes.items():
        setattr(info, field, value)
    return info, content


def encoded(image: np.ndarray, image_format: str = "png") -> bytes:
    return next(encode_images(image[None], image_format))


LOGITS = np.zeros((1 + VIEWS, CLASSES), dtype=np.float16)
RECIPE = (0, 200, 1, -1, 0, 1, 0, 1, 6, 4, 0)  # within what an image of 6 x 5 pixels allows


def good_members() -> dict[str, bytes]:
    image = np.full(SHAPE, 7, dtype=np.uint8)
    views = np.array([RECIPE] * VIEWS, dtype=np.int32)
    return {
        "cls": b"2",
        "json": RECORD,
        "logits.npy": encode_npy(LOGITS),
        "png": encoded(image),
        "views.npy": encode_npy(views),
    }


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar of these headers and contents as they are, truthful or not."""
    parts = [info.tobuf(tarfile.GNU_FORMAT) + body + b"\0" * (-len(body) % 512) for info, body in members]
    return b"".join(parts) + b"\0" * 1024


def shard_with(**changed: bytes | None) -> bytes:
    """One good sample with a member's content changed, or left out."""
    contents: dict[str, bytes | None] = {**good_members(), **{k.replace("_", "."): v for k, v in changed.items()}}
    return tar_of(*(member(f"000000000.{kind}", body) for kind, body in contents.items() if body is not None))


def decode(data: bytes, image_format: str = "png") -> Samples:
    return decode_shard(data, "the shard", Layout(SHAPE, CLASSES, VIEWS, image_format))


def refused(data: bytes, image_format: str = "png") -> str:
    with pytest.raises(DamagedShardError) as caught:
        decode(data, image_format)
    message = str(caught.value)
    assert message.startswith("the shard")
    assert len(message) < 400
    return message


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width: int, height: int, *extra: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG whose header claims a size, with the pixels of the right one."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 6 * 6))
    return b"\x89PNG\r\n\x1a\n" + header + pixels + b"".join(extra) + chunk(b"IEND", b"")


def npy_of(header: str, body: bytes = b"\0" * 12) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_a_good_sample_made_by_hand_is_accepted() -> None:
    back = decode(shard_with())
    assert (back.keys, back.labels.tolist(), back.images.mean()) == (["000000000"], [2], 7)


def kill(path: Path) -> bytes:
    """A pickle that would make a file."""
    return b"cos\nsystem\n(S'touch %s'\ntR." % os.fsencode(path)


def test_a_pickle_is_refused_by_name_and_not_run(tmp_path: Path) -> None:
    payload = kill(tmp_path / "owned")
    for name in ("000000000.pkl", "000000000.pyd", "000000000.pth", "000000000.npy"):
        assert repr(name) in refused(tar_of(member(name, payload)))
    refused(shard_with(logits_npy=payload))
    refused(shard_with(json=payload))
    refused(shard_with(views_npy=payload))
    refused(shard_with(logits_npy=saved(np.array([[1, 2, 3]] * 3, dtype=object))))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../../000000000.cls",
        "/etc/passwd",
        "./000000000.cls",
        "a/000000000.cls",
        "000000000.cls/",
        "00000000.cls",
        "0000000000.cls",
        "000000000.CLS",
        "000000000.cls.gz",
        "000000000",
        "000000000.\n",
        "\u0660" * 9 + ".cls",
        "x" * 90,
    ],
)
def test_a_name_outside_the_format_is_refused_by_name(name: str) -> None:
    message = refused(tar_of(member(name, b"1")))
    assert "is not allowed" in message or "not a plain file" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.DIRTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        b"?",
    ],
)
def test_a_member_that_is_not_a_plain_file_is_refused(kind: bytes) -> None:
    link = member("000000000.cls", b"1", type=kind, linkname="/etc/passwd")
    assert "'000000000.cls' is not a plain file" in refused(tar_of(link))


def test_a_pax_header_is_refused_unread() -> None:
    # Python's tarfile searches it in quadratic time: this megabyte would take a quarter of an hour.
    assert "not a plain file" in refused(tar_of(member("x", b"1" * 2**20, type=tarfile.XHDTYPE)))


def test_a_duplicate_member_is_refused() -> None:
    twice = [member("000000000.cls", b"1"), member("000000000.cls", b"2")]
    assert "000000000.cls is there twice" in refused(tar_of(*twice))


@pytest.mark.parametrize("kind", ["cls", "json", "logits_npy", "png", "views_npy"])
def test_a_missing_member_is_named(kind: str) -> None:
    assert f"image 000000000: its {kind.replace('_', '.')} is missing" in refused(shard_with(**{kind: None}))


@pytest.mark.parametrize("size", [2, 10**6, 2**33, 2**60, -512, -1])
def test_a_member_longer_than_the_shard_is_refused(size: int) -> None:
    message = refused(tar_of(member("000000000.cls", b"1", size=size))[: 512 + 1])
    assert "claims" in message or "cut short" in message


@pytest.mark.parametrize(
    ("png", "words"),
    [
        (png_of(100_000, 100_000), "has more than"),
        (png_of(20_000, 2_000), "is 20000x2000 L, expected 5x6 L"),
        (png_of(6, 5), "is 6x5 L, expected 5x6 L"),
        (png_of(5, 6, depth=1), "is 5x6 1, expected 5x6 L"),
        (png_of(5, 6, depth=16), "is 5x6 I;16, expected 5x6 L"),
        (encoded(np.zeros((3, 6, 5), dtype=np.uint8)), "is 5x6 RGB, expected 5x6 L"),
        (png_of(5, 6)[:45], "it is damaged"),
        (b"", "it is damaged"),
        (b"GIF89a" + b"\0" * 50, "it is damaged"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 50, "it is damaged"),
    ],
)
def test_a_png_of_another_size_kind_or_none_is_refused(png: bytes, words: str) -> None:
    assert words in refused(shard_with(png=png))


@pytest.mark.filterwarnings("ignore:Invalid APNG")
@pytest.mark.parametrize(
    "kind", b"iCCP tRNS gAMA cHRM pHYs sRGB PLTE tEXt zTXt iTXt eXIf acTL fcTL fdAT IDAT IHDR".split()
)
def test_a_malformed_extra_chunk_of_a_png_does_no_harm(kind: bytes) -> None:
    bodies = [b"", b"\0", b"abc", b"k\0", b"k\0\0", b"k\0\0zzz", b"\xff" * 30, b"k\0\0" + zlib.compress(b"0" * 2**20)]
    for body in bodies:
        returns_or_refuses(shard_with(png=png_of(5, 6, chunk(kind, body))))


@pytest.mark.parametrize("kind", ["gAMA", "cHRM", "tRNS"])
def test_a_chunk_too_short_for_its_numbers_is_refused(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def unpack(stream: PngImagePlugin.PngStream, pos: int, length: int) -> None:  # as Pillow 11 did
        struct.unpack(">I", stream.fp.read(length))

    monkeypatch.setattr(PngImagePlugin.PngStream, f"chunk_{kind}", unpack)
    assert "its PNG is refused" in refused(shard_with(png=png_of(5, 6, chunk(kind.encode(), b"\0"))))


def returns_or_refuses(data: bytes) -> bool:
    """Whether it is accepted; any other exception fails the test."""
    try:
        decode(data)
    except UserError:
        return False
    return True


@pytest.mark.parametrize(
    ("npy", "words"),
    [
        (encode_npy(LOGITS + np.float16("nan")), "hold NaN or infinity"),
        (encode_npy(LOGITS + np.float16("inf")), "hold NaN or infinity"),
        (encode_npy(LOGITS[:, :2]), "expected float16 (3, 3)"),
        (encode_npy(LOGITS[:2]), "are float16 (2, 3), expected float16 (3, 3)"),
        (encode_npy(LOGITS.flatten()), "expected float16 (3, 3)"),
        (saved(np.asfortranarray(LOGITS)), "(3, 3) in Fortran order"),
        (saved(LOGITS.astype(np.float32)), "are float32 (3, 3)"),
        (saved(LOGITS.astype(np.int16)), "are int16 (3, 3)"),
        (saved(LOGITS.astype(">f2")), "are >f2 (3, 3)"),
        (saved(LOGITS.astype(object)), "are object (3, 3)"),
        (encode_npy(LOGITS) + b"\0", "have 19 bytes, not 18"),
        (encode_npy(LOGITS)[:-1], "have 17 bytes, not 18"),
        (npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n"), "expected float16"),
        (npy_of("{'descr': '<f2', 'fortran_order': False, 'shape': (3, 3), }\n"), "have 12 bytes, not 18"),
        (npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }\n", b""), "are float32 (3,)"),
        (npy_of("{'descr': '<f4', 'shape': (3,"), "not a plain npy array"),
        (npy_of("{[1]: 2}"), "not a plain npy array"),
        (npy_of("{1: 2, 'a': 3}"), "not a plain npy array"),
        (npy_of("{'descr': (), 'fortran_order': False, 'shape': (3,)}"), "not a plain npy array"),
        (npy_of("__import__('os').system('true')"), "not a plain npy array"),
        (npy_of("(" * 9000), "not a plain npy array"),
        (npy_of("5"), "not a plain npy array"),
        (npy_of("{'descr': '<f4'" + " " * 20_000 + "}"), "not a plain npy array"),
        (b"\x93NUMPY\x03\x00", "not a plain npy array"),
        (b"", "not a plain npy array"),
    ],
)
def test_logits_that_are_not_a_plain_table_of_numbers_are_refused(npy: bytes, words: str) -> None:
    assert words in refused(shard_with(logits_npy=npy))


@pytest.mark.parametrize(
    "label", [b"3", b"999999", b"-1", b"", b"1.0", b"1\n", b"0x1", b"1" * 5000, "²".encode(), b"\xff"]
)
def test_a_class_out_of_range_is_refused(label: bytes) -> None:
    assert "is not within 0 and 2" in refused(shard_with(cls=label))


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"nonsense",
        b"[]",
        b"1",
        b"null",
        b"\xff\xfe\x00",
        b"{}",
        b'{"confidence": 1}',
        b'{"confidence": "1", "entropy": 0}',
        b'{"confidence": NaN, "entropy": 0}',
        b'{"confidence": 0, "entropy": 1e999}',
        b'{"confidence": 1' + b"0" * 400 + b', "entropy": 0}',
        b'{"confidence": 1' + b"0" * 5000 + b', "entropy": 0}',
        b"[" * 60_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"confidence": 1, "entropy": 0, "x": "' + b"a" * 70_000 + b'"}',
    ],
    ids=lambda record: repr(record[:30]),
)
def test_a_record_that_is_not_one_small_object_with_numbers_is_refused(record: bytes) -> None:
    message = refused(shard_with(json=record))
    assert "its json is not one small object" in message or "is not a finite number" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({PARTNER: 1}, "its partner 1 is not an image of the shard"),
        ({PARTNER: -1}, "its partner -1 is not an image of the shard"),
        ({SHARE: 127}, "its share 127 is not within 128 and 256"),
        ({SHARE: 257}, "its share 257 is not within 128 and 256"),
        ({DOWN: 2}, "its shift 2 is not within -1 and 1"),
        ({RIGHT: -2}, "its shift -2 is not within -1 and 1"),
        ({PARTNER_DOWN: -(2**31)}, "its shift -2147483648 is not within -1 and 1"),
        ({PARTNER_RIGHT: 2**31 - 1}, "its shift 2147483647 is not within -1 and 1"),
        ({HEIGHT: 0}, "its crop's side 0 is not within 1 and 6"),
        ({WIDTH: 6}, "its crop's side 6 is not within 1 and 5"),
        ({TOP: -1, HEIGHT: 3}, "its crop's begin -1 is not within 0 and 5"),
        ({TOP: 1}, "its crop's end 7 is not within 1 and 6"),
        ({LEFT: 2**31 - 1, WIDTH: 1}, "its crop's begin 2147483647 is not within 0 and 4"),
        ({MIRRORED: 2}, "its mirror mark 2 is not within 0 and 1"),
    ],
    ids=str,
)
def test_a_recipe_of_no_view_is_refused_by_name(changes: dict[int, int], words: str) -> None:
    views = np.array([RECIPE] * VIEWS, dtype=np.int32)
    for column, value in changes.items():
        views[1, column] = value
    message = refused(shard_with(views_npy=encode_npy(views)))
    assert f"the shard, image 000000000, view 2: {words}" in message


@pytest.mark.parametrize(
    ("npy", "words"),
    [
        (encode_npy(np.zeros((VIEWS + 1, COLUMNS), np.int32)), "are int32 (3, 11), expected int32 (2, 11)"),
        (encode_npy(np.zeros((VIEWS, COLUMNS - 1), np.int32)), "are int32 (2, 10), expected int32 (2, 11)"),
        (encode_npy(np.zeros((VIEWS, COLUMNS), np.int64)), "are int64 (2, 11)"),
        (encode_npy(np.zeros((VIEWS, COLUMNS), np.float32)), "are float32 (2, 11)"),
        (b"", "not a plain npy array"),
    ],
)
def test_views_that_are_not_as_many_recipes_as_planned_are_refused(npy: bytes, words: str) -> None:
    assert words in refused(shard_with(views_npy=npy))


@pytest.mark.parametrize(
    ("jpg", "words"),
    [
        (encoded(np.zeros((1, 5, 6), np.uint8), "jpg"), "its JPEG is refused (it is 6x5 L, expected 5x6 L)"),
        (encoded(np.zeros((3, 6, 5), np.uint8), "jpg"), "its JPEG is refused (it is 5x6 RGB, expected 5x6 L)"),
        (encoded(np.zeros(SHAPE, np.uint8), "jpg")[:-200], "its JPEG is refused (it is damaged"),
        (encoded(np.zeros(SHAPE, np.uint8)), "its JPEG is refused (it is damaged, or none of JPEG"),
    ],
)
def test_a_jpeg_of_another_size_kind_or_none_is_refused(jpg: bytes, words: str) -> None:
    assert words in refused(shard_with(png=None, jpg=jpg), "jpg")


def test_an_image_in_the_other_format_than_the_index_says_is_refused_by_name() -> None:
    jpg = shard_with(png=None, jpg=encoded(np.zeros(SHAPE, np.uint8), "jpg"))
    assert "member '000000000.jpg' is not allowed" in refused(jpg)
    assert "member '000000000.png' is not allowed" in refused(shard_with(), "jpg")
    assert decode(jpg, "jpg").images.max() == 0


def test_a_shard_whose_images_would_not_fit_in_memory_is_refused_before_decoding() -> None:
    kinds = good_members()
    data = tar_of(*(member(f"{key:09d}.{kind}", b"1") for key in range(1000) for kind in kinds))
    with pytest.raises(DamagedShardError, match="take more than"):
        decode_shard(data, "the shard", Layout((3, 4096, 4096), 10, VIEWS))


def test_a_truncated_shard_is_refused_by_name() -> None:
    data = whole_shard(some_samples())
    end = len(data.rstrip(b"\0"))
    for length in [*range(0, end, 177), 511, 512, 513, end]:
        assert "the shard" in refused(data[:length])


def test_a_file_that_is_not_a_tar_is_refused_by_name() -> None:
    for data in (b"", b"x" * 511, b"x" * 5000, zlib.compress(b"0" * 5000), b"PK\x03\x04" + b"\0" * 600):
        refused(data)


def test_a_damaged_shard_is_read_or_refused_and_nothing_else() -> None:
    choose, data, accepted = random.Random(0), whole_shard(some_samples(2)), 0
    for _ in range(600):
        damaged = DAMAGES[choose.randrange(len(DAMAGES))](bytearray(data), choose)
        accepted += returns_or_refuses(bytes(damaged))
    assert 0 < accepted < 600  # some bytes, such as padding, don't matter


def flip(data: bytearray, choose: random.Random) -> bytearray:
    for _ in range(choose.choice((1, 1, 5, 50))):
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
    return data


def cut(data: bytearray, choose: random.Random) -> bytearray:
    return data[: choose.randrange(len(data))]


def remove(data: bytearray, choose: random.Random) -> bytearray:
    start = choose.randrange(len(data))
    del data[start : start + choose.choice((1, 13, 512, 1024))]
    return data


def repeat(data: bytearray, choose: random.Random) -> bytearray:
    start = choose.randrange(0, len(data), 512)
    return data[:start] + data[max(0, start - 1024) : start] + data[start:]


def reseal(data: bytearray, choose: random.Random) -> bytearray:
    """A byte of a header changed, and its checksum made right again, so that the change is looked at."""
    headers = [start for start in range(0, len(data), 512) if data[start + 257 : start + 262] == b"ustar"]
    start = choose.choice(headers)
    data[start + choose.choice((choose.randrange(100), choose.randrange(124, 136), 156))] = choose.randrange(256)
    data[start + 148 : start + 156] = b" " * 8
    data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    return data


DAMAGES: list[Callable[[bytearray, random.Random], bytearray]] = [flip, cut, remove, repeat, reseal]


def test_the_fast_reading_of_a_header_agrees_with_tarfile() -> None:
    draw = random.Random(0)
    good = whole_shard(some_samples())[:512]
    assert our_header(good) == foreign_header(good, "s")
    accepted = 0
    for _ in range(5000):
        block = bytearray(good)
        for _ in range(draw.choice((1, 1, 2, 8))):
            block[draw.choice((draw.randrange(512), draw.randrange(100, 160)))] = draw.choice(b"\0 079a\xff./")
        if draw.random() < 0.7:  # most of them with a true checksum
            block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
        quick = our_header(bytes(block))
        if quick is None:
            continue
        accepted += 1
        try:
            assert foreign_header(bytes(block), "s") == quick
        except DamagedShardError as error:  # it also reads fields that nothing here depends on, such as the owner
            assert "is not a readable tar" in str(error)  # noqa: PT017
    assert accepted > 500
