from pathlib import Path

import pytest

from synth.basics.errors import UserError
from synth.checkpoint.importing.class_names import names_from_file, told_apart


@pytest.mark.parametrize(
    "text",
    [
        "cat\nbig, black dog\nbird\n",
        "\ufeffcat\r\nbig, black dog\r\nbird\r\n\r\n",
        '["cat", "big, black dog", "bird"]',
        '{"0": "cat", "2": "bird", "1": "big, black dog"}',
        '{"big, black dog": 1, "cat": 0, "bird": 2}',
        '{"0": ["n01", "cat"], "1": ["n02", "big, black dog"], "2": ["n03", "bird"]}',
    ],
)
def test_names_are_read_from_any_usual_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text, encoding="utf-8")
    assert names_from_file(tmp_path / "names") == ("cat", "big, black dog", "bird")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cat\n\ndog\n", "has an empty name in line 2"),
        (b'{"0": "cat", "2": "dog"}', "has no class names: write one name per line"),
        (b"[1, 2]", "has no class names"),
        (b"", "has no class names: write one name per line"),
        (b"[" * 90_000, "has no class names"),
        (b"\xff\xfe", "cannot read the class names"),
    ],
)
def test_a_file_without_names_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(UserError, match=words):
        names_from_file(tmp_path / "names")


def test_a_missing_file_of_names_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the class names in .*: No such file"):
        names_from_file(tmp_path / "none")


def test_a_name_that_occurs_twice_gets_its_number() -> None:
    assert told_apart(["crane", "dog", "crane"]) == ("crane (0)", "dog", "crane (2)")
