"""JSON from elsewhere: whatever is accepted can be walked, printed and compared."""

from __future__ import annotations

import json

import pytest

from synth.basics.foreign_json import DEEPEST, parse_json, parse_object


@pytest.mark.parametrize("value", [None, True, 1, -(2**63), 2**64 - 1, 0.5, "Größe 猫", [], {"a": [{"b": [1, 2.5]}]}])
def test_plain_values_are_read_as_python_does(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value).encode()) == value  # as some editors begin a file


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "a name twice"),
        (b"[NaN]", "it has the number NaN"),
        (b'{"a": -Infinity}', "it has the number -Infinity"),
        (b"[1e999]", "a number that is too large"),
        (b"[" + b"9" * 21 + b"]", "more than 20 digits"),
        (b"[" + b"9" * 4300 + b"]", "more than 20 digits"),
        (b"9" * 1_000_000, "more than 20 digits"),
        (b"[" * 900 + b"]" * 900, "nested deeper"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "nested deeper"),
        (b"[" * 1_000_000, "nested deeper"),
        (b"[" * (DEEPEST + 1) + b"1" + b"]" * (DEEPEST + 1), "nested deeper"),
        (b"\xff\xfe", "decode"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
    ],
)
def test_what_would_surprise_later_is_a_value_error(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_json(data)


def test_the_deepest_value_is_read() -> None:
    assert parse_json(b"[" * DEEPEST + b"1" + b"]" * DEEPEST)


@pytest.mark.parametrize("data", [b"[]", b"1", b'"{}"', b"null"])
def test_an_object_is_asked_for(data: bytes) -> None:
    with pytest.raises(ValueError, match="it is not a JSON object"):
        parse_object(data)


def test_constants_may_have_a_value() -> None:
    assert parse_object('{"loss": NaN, "all": [Infinity]}', constant=lambda _: None) == {"loss": None, "all": [None]}
