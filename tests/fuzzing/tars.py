"""Mutations of a shard: fields of its tar headers, its members, and what is in them."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Callable

from tests.fuzzing.bytewise import NUMBERS, bytewise
from tests.fuzzing.pictures import mutate_jpeg, mutate_png
from tests.fuzzing.tensors import mutate_npy
from tests.fuzzing.values import mutate_json

BLOCK = tarfile.BLOCKSIZE
FIELDS = {"name": (0, 100), "mode": (100, 108), "size": (124, 136), "mtime": (136, 148), "type": (156, 157)} | {
    "link": (157, 257),
    "magic": (257, 265),
    "prefix": (345, 500),
}
NAMES = ("../owned", "/owned", "a/../../owned", "000000000.pkl", "000000000.pyd", "000000000.png", "", "a" * 100)
TYPES = b"01234567gxLKSDVAN\0\xff"
SIZES = (b"77777777777\0", b"-1\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"00000000000\0", b"9" * 12, b" " * 12)
Member = tuple[bytes, bytes]  # a header of 512 bytes, and a content


def mutate_shard(data: bytes, rng: random.Random) -> bytes:
    members = members_of(data)
    place = rng.randrange(len(members))
    head, content = members[place]
    kind = rng.randrange(10)
    if kind < 5:
        changed = mutation_for(head)(content, rng)
        size = f"{len(changed):011o}\0".encode()
        members[place] = (checked(head[:124] + size + head[136:]), changed)
    elif kind < 8:
        changed = with_other_field(head, rng)
        members[place] = (checked(changed) if rng.random() < 0.8 else changed, content)
    elif kind == 8:
        members[place : place + 1] = [members[place]] * rng.choice((0, 2, 3))
    else:
        rng.shuffle(members)
    return written(members) + b"\0" * BLOCK * rng.choice((2, 2, 2, 0, 1, 20))


def members_of(data: bytes) -> list[Member]:
    """Of a tar without extensions, as the product writes it."""
    found, offset = [], 0
    while any(head := data[offset : offset + BLOCK]):
        size = int(head[124:135], 8)
        found.append((head, data[offset + BLOCK : offset + BLOCK + size]))
        offset += BLOCK + -(-size // BLOCK) * BLOCK
    return found


def written(members: list[Member]) -> bytes:
    return b"".join(head + content + b"\0" * (-len(content) % BLOCK) for head, content in members)


def checked(head: bytes) -> bytes:
    """The header with its checksum."""
    total = sum(head) - sum(head[148:156]) + 8 * ord(" ")
    return head[:148] + f"{total:06o}\0 ".encode() + head[156:]


def with_other_field(head: bytes, rng: random.Random) -> bytes:
    name = rng.choice(list(FIELDS))
    start, stop = FIELDS[name]
    values = {
        "name": rng.choice(NAMES).encode(),
        "type": bytes([rng.choice(TYPES)]),
        "size": rng.choice(SIZES),
        "prefix": rng.choice((b"..", b"/", b"a" * 155)),
    }
    value = values.get(name, rng.choice(NUMBERS).to_bytes(8, "big"))
    return head[:start] + value.ljust(stop - start, b"\0")[: stop - start] + head[stop:]


def mutation_for(head: bytes) -> Callable[[bytes, random.Random], bytes]:
    """What fits the kind of the member."""
    name = head[:100].rstrip(b"\0").decode()
    kinds = {".json": mutate_json, ".npy": mutate_npy, ".png": mutate_png, ".jpg": mutate_jpeg}
    return next((mutation for ending, mutation in kinds.items() if name.endswith(ending)), bytewise)
