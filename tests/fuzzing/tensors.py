"""Mutations of safetensors files and of npy arrays: the header, the JSON in its metadata, its length, the numbers."""

from __future__ import annotations

import json
import random

import numpy as np

from tests.fuzzing.bytewise import bytewise
from tests.fuzzing.values import mutate_text

NPY_HEADERS = (
    "{'descr': '|O', 'fortran_order': False, 'shape': (10,), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (10,), }",
    "{'descr': '<f2', 'fortran_order': True, 'shape': (2, 10), }",
    "{'descr': '<i4', 'fortran_order': True, 'shape': (1, 11), }",
    "{'descr': '<i4', 'fortran_order': False, 'shape': (11,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (10,), }",
    "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (10,), }",
    "{'descr': '<f4', 'shape': (10,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 200 + ")" * 200 + ", }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }",
    "__import__('os').system('touch owned')",
    "{" + "1:" * 500,
)


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length].decode(), data[8 + length :]
    kind = rng.randrange(6)
    if kind < 3:
        header = with_mutated_metadata(header, rng)
    elif kind == 3:
        header = mutate_text(header, rng)
    elif kind == 4:
        body = bytewise(body, rng)
    else:
        body = with_special_number(body, rng)
    head = header.encode("utf-8", "surrogatepass")
    claimed = len(head) if rng.random() < 0.9 else rng.choice((0, 1, len(head) - 1, 2**31, 2**63, 2**64 - 1))
    return claimed.to_bytes(8, "little") + head + body


def with_mutated_metadata(header: str, rng: random.Random) -> str:
    """The header with another model card; the card is JSON inside JSON."""
    raw = json.loads(header)
    key = rng.choice(list(raw["__metadata__"]))
    raw["__metadata__"][key] = mutate_text(raw["__metadata__"][key], rng)
    return json.dumps(raw)


def with_special_number(body: bytes, rng: random.Random) -> bytes:
    """One of the float32 numbers is NaN, infinite or huge."""
    place = 4 * rng.randrange(len(body) // 4)
    number = np.float32(rng.choice((np.nan, np.inf, -np.inf, 3e38, 1e-45)))
    return body[:place] + number.tobytes() + body[place + 4 :]


def with_other_integer(data: bytes, rng: random.Random) -> bytes:
    """One of the int32 numbers after the header of 128 bytes is another: near by, or extreme."""
    numbers = np.frombuffer(data[128 : len(data) // 4 * 4], dtype="<i4").copy()
    if not len(numbers):
        return bytewise(data, rng)
    place = rng.randrange(len(numbers))
    near = int(numbers[place]) + rng.choice((-256, -128, -28, -3, -1, 1, 3, 28, 128, 256))
    value = rng.choice((near, near, near, 0, -1, 2**31 - 1, -(2**31), 1000)) % 2**32
    numbers[place] = np.uint32(value).astype(np.int32)
    return data[:128] + numbers.tobytes() + data[128 + numbers.nbytes :]


def mutate_npy(data: bytes, rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.3:
        return bytewise(data, rng)
    if kind < 0.6:
        return with_other_integer(data, rng)
    header = rng.choice(NPY_HEADERS).encode() + b"\n"
    version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\xff\x00"))
    size = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 65535))
    return b"\x93NUMPY" + version + size.to_bytes(2 if version[0] == 1 else 4, "little") + header + data[-40:]
