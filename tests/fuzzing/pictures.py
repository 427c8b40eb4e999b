"""Mutations of PNG chunks and JPEG segments, with right checksums, so that the decoder comes to the content."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache

from tests.fuzzing.bytewise import NUMBERS, bytewise

Part = tuple[bytes, bytes]  # a chunk's or a segment's name, and its content
SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIDES = (0, 1, 7, 29, 4096, 20_000, 65_500, 3_000_000, 2**31 - 1, 2**32 - 1)
EXTRA = (b"zTXt", b"iTXt", b"tEXt", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"PLTE", b"tRNS", b"gAMA", b"IEND")


@cache
def bomb() -> bytes:
    """64 MiB of zeros, compressed."""
    return zlib.compress(bytes(2**26), 9)


def mutate_png(data: bytes, rng: random.Random) -> bytes:
    chunks = chunks_of(data)
    place = rng.randrange(len(chunks))
    name, content = chunks[place]
    kind = rng.randrange(7)
    if kind in (0, 1):
        chunks[0] = (b"IHDR", other_header(chunks[0][1], rng))
    elif kind == 2:
        chunks[place] = (name, bytewise(content, rng) if content else b"a")
    elif kind == 3:
        chunks.insert(place, (rng.choice(EXTRA), extra_content(rng)))
    elif kind == 4:
        chunks[place : place + 1] = [chunks[place]] * rng.choice((0, 2, 100))
    elif kind == 5:
        pixels = bomb() if rng.random() < 0.1 else zlib.compress(rng.randbytes(rng.choice((0, 10, 10_000))))
        chunks = [(n, pixels if n == b"IDAT" else c) for n, c in chunks]
    else:
        return bytewise(data, rng)
    return SIGNATURE + b"".join(map(chunk_bytes, chunks))


def chunks_of(data: bytes) -> list[Part]:
    found, offset = [], len(SIGNATURE)
    while offset + 8 <= len(data):
        (length,) = struct.unpack(">I", data[offset : offset + 4])
        found.append((data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + length]))
        offset += 12 + length
    return found


def chunk_bytes(chunk: Part) -> bytes:
    name, content = chunk
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def other_header(header: bytes, rng: random.Random) -> bytes:
    width, height, *rest = struct.unpack(">IIBBBBB", header)
    sides = [rng.choice((side, rng.choice(SIDES))) for side in (width, height)]
    if rng.random() < 0.5:
        rest[rng.randrange(5)] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
    return struct.pack(">IIBBBBB", *sides, *rest)


def extra_content(rng: random.Random) -> bytes:
    return rng.choice(
        (
            lambda: b"key\0\0" + (bomb() if rng.random() < 0.2 else zlib.compress(b"a" * 1000)),
            lambda: b"key\0\1\0\0\0" + zlib.compress(b"a" * 1000),
            lambda: struct.pack(">II", rng.choice(NUMBERS) % 2**32, 0),
            lambda: struct.pack(">IIIIIHHBB", 0, *(rng.choice(SIDES) % 2**32 for _ in range(4)), 1, 1, 0, 0),
            lambda: rng.randbytes(rng.choice((0, 1, 3, 26, 768, 1000))),
        )
    )()


def mutate_jpeg(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return bytewise(data, rng)
    segments, scan = segments_of(data)
    place = rng.randrange(len(segments))
    marker, content = segments[place]
    kind = rng.randrange(4)
    if kind == 0 and content:
        segments[place] = (marker, bytewise(content, rng)[:65_000])
    elif kind == 1:
        sides = struct.pack(">HH", *(rng.choice(SIDES) % 2**16 for _ in range(2)))
        segments = [(m, c[:1] + sides + c[5:] if m in (b"\xff\xc0", b"\xff\xc2") else c) for m, c in segments]
    elif kind == 2:
        extra = rng.choice((b"Exif\0\0MM\0*", b"ICC_PROFILE\0\1\1", b"Adobe\0d", b"MPF\0II*\0", b"")) + rng.randbytes(
            40
        )
        segments.insert(place, (bytes([0xFF, rng.choice((0xE1, 0xE2, 0xEE, 0xFE, 0xC4, 0xDB, 0xDD))]), extra))
    else:
        segments[place : place + 1] = [segments[place]] * rng.choice((0, 2, 50))
    head = b"".join(m + struct.pack(">H", len(c) + 2) + c for m, c in segments)
    return b"\xff\xd8" + head + scan


def segments_of(data: bytes) -> tuple[list[Part], bytes]:
    """The segments before the scan, and the scan with all that follows."""
    found, offset = [], 2
    while data[offset + 1] != 0xDA:
        (length,) = struct.unpack(">H", data[offset + 2 : offset + 4])
        found.append((data[offset : offset + 2], data[offset + 4 : offset + 2 + length]))
        offset += 2 + length
    return found, data[offset:]
