"""Mutations of JSON that keep it JSON, most of the time: types, sizes, depth, numbers, text, keys."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.fuzzing.bytewise import bytewise

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 0.5, -0.0, 1e308, 5e-324, 10**9, 10**12, 2**31, 2**63, 2**64, 2**70, -(2**70)),
    *("", "a", "0", "-1", "1e9", "nan", "auto", "none", "\x1b[2J\x07", "a\0b", "é" * 300, "x" * 100_000, "٣", "1_0"),
    *(
        "../../outside",
        "/dev/zero",
        "/dev/stdin",
        "/proc/self/mem",
        "file:///dev/zero",
        "file://a\0b",
        "pipe:touch owned",
    ),
    *("memory://a/b", "http://127.0.0.1:9/a", "os:system", "antigravity:fly", "resnet18", "vit_h_14", "swin_t", "cuda"),
    *([], {}, [[]], [0], [None], [1.5, "a"], {"a": 1}, {"": None}, [0] * 50_000, {str(n): n for n in range(5000)}),
)
# JSON that `json.dumps` does not write.
RAW = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "9" * 400, "9" * 4300, "-" + "9" * 5000),
    *("0." + "1" * 5000, "1e" + "9" * 30, r'"\ud800"', r'"\u0000"', r'"\u001b]0;a\u0007"', "[" * 900 + "]" * 900),
    *('{"a":' * 900 + "1" + "}" * 900, "[" * 60 + "]" * 60, "[" * 100_000, '{"a":' * 50_000, "tru", "'a'", "01"),
)
MARK = "\N{REPLACEMENT CHARACTER}raw"  # stands for one of RAW until the text is written


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """The JSON with one to three parts changed."""
    return mutate_text(data.decode(), rng).encode("utf-8", "surrogatepass")


def mutate_text(text: str, rng: random.Random) -> str:
    """As `mutate_json`, for text."""
    value, raw = json.loads(text), rng.choice(RAW)
    ascii_only = rng.random() < 0.7
    mark = json.dumps(MARK, ensure_ascii=ascii_only)
    try:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            value = mutate_value(value, rng)
        return json.dumps(value, ensure_ascii=ascii_only).replace(mark, raw, 1).replace(mark, "0")
    except (ValueError, RecursionError, MemoryError):  # a value was put into itself
        return text


def mutate_lines(data: bytes, rng: random.Random) -> bytes:
    """One line of a file with a JSON value per line is changed."""
    lines = data.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    lines[place] = mutate_json(lines[place], rng) + rng.choice((b"\n", b"", b"\r"))
    return b"".join(lines)


def in_other_form(data: bytes, rng: random.Random) -> bytes:
    """The same JSON in another encoding, with a key twice, or with something around it."""
    text = data.decode()
    return rng.choice(
        (
            lambda: text.encode("utf-16"),
            lambda: text.encode("utf-32"),
            lambda: b"\xef\xbb\xbf" + data,
            lambda: data + data,
            lambda: b"[" + data + b"]",
            lambda: data.replace(b"{", b'{"a": 1, "a": 2, ', 1),
            lambda: b" " * 100_000 + data,
            lambda: bytewise(data, rng),
        )
    )()


def mutate_value(value: Any, rng: random.Random) -> Any:
    """The value with one part changed."""
    places = list(places_in(value))
    if not places:
        return rng.choice(ODD)
    path = rng.choice(places)
    inside = value
    for key in path[:-1]:
        inside = inside[key]
    change(inside, path[-1], rng)
    return value


def change(inside: Any, key: Any, rng: random.Random) -> None:
    kind = rng.randrange(10)
    if kind == 0:
        del inside[key]
    elif kind == 1 and isinstance(inside, list):
        inside.extend([inside[key]] * rng.choice((1, 2, 1000)))
    elif kind == 1:
        inside[rng.choice(("", "a\0b", "\x1b[2J", "__class__", "x" * 10_000, "format_version", "9" * 5000))] = inside[
            key
        ]
    elif kind == 2:
        inside[key] = rng.choice(([inside[key]], {"a": inside[key]}, str(inside[key]), [inside[key]] * 1000))
    elif kind == 3:
        inside[key] = nudged(inside[key], rng)
    elif kind in (4, 5):
        inside[key] = MARK
    else:
        inside[key] = rng.choice(ODD)


def nudged(value: Any, rng: random.Random) -> Any:
    """A value of the same type that is a little or a lot different."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return rng.choice((value + 1, value - 1, -value, value * 1000, value / 3, value * 10**6))
    if isinstance(value, str):
        return rng.choice((value[:-1], value + "a", value.upper(), value * 50, value[::-1], " " + value))
    return value


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """The path of each part of a value; of a long list only the first and last parts, or it would hide the rest."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, list):
        keys = [*range(min(len(value), 3)), *range(max(3, len(value) - 2), len(value))]
    else:
        return
    for key in keys:
        yield (*path, key)
        yield from places_in(value[key], (*path, key))
