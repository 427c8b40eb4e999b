"""Mutations of any bytes: flipped, cut, inserted, repeated, overwritten."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

Mutation = Callable[[bytes, random.Random], bytes]

NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = (b"\0", b"\n", b"\xff\xfe", b"../", b"%s%n", b"\x1b[2J", b"9" * 5000, b"[" * 2000, b'"', b"{", b"}", b"NaN")
LONGEST = 2**16  # bytes that one mutation inserts


def flip(data: bytes, rng: random.Random) -> bytes:
    """Some bits are others."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def remove(data: bytes, rng: random.Random) -> bytes:
    start, stop = stretch(data, rng)
    return data[:start] + data[stop:]


def insert(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data) + 1)
    extra = rng.choice((rng.choice(WORDS), rng.randbytes(rng.choice((1, 4, 64, 1000)))))
    return data[:place] + extra + data[place:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A stretch stands there several times."""
    start, stop = stretch(data, rng)
    times = max(1, min(rng.choice((1, 2, 10, 1000)), LONGEST // max(1, stop - start)))
    return data[:stop] + data[start:stop] * times + data[stop:]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """A number at the edge of its type stands somewhere."""
    length = rng.choice((1, 2, 4, 8))
    number = rng.choice(NUMBERS) % 256**length
    place = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 64))
    return data[:place] + number.to_bytes(length, rng.choice(("little", "big"))) + data[place + length :]


def blank(data: bytes, rng: random.Random) -> bytes:
    """A stretch of zeros or of 0xff."""
    start, stop = stretch(data, rng)
    return data[:start] + rng.choice((b"\0", b"\xff")) * (stop - start) + data[stop:]


def stretch(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data))
    return start, min(len(data), start + rng.choice((1, 4, 16, 512, 4096)))


ALL: Sequence[Mutation] = (flip, flip, truncate, remove, insert, repeat, overwrite, overwrite, blank)


def bytewise(data: bytes, rng: random.Random) -> bytes:
    """One to four of the mutations above."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        if data:
            data = rng.choice(ALL)(data, rng)
    return data
