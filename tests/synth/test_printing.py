"""No word of somebody else's file commands the terminal, and no terminal ends a command by what it can't show."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import unicodedata
from pathlib import Path

import pytest

from synth.commands.main import main
from synth.commands.printing import LONGEST_LINE, echo, say
from synth.run.lock import LOCK, process_facts
from synth.shards.index import INDEX

EVIL = "\x1b[2J\x9b31m\u202edrow\u2066\x07\r\x00"
NAMES = "Größe γάτα 猫 고양이 ねこ кот قطة חתול बिल्ली नमस्\u200dते می\u200cرم 🐈"


def controls(text: str) -> set[str]:
    """The characters that could command a terminal."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")} - set(
        "\n\t\u200c\u200d"
    )


def test_escapes_are_shown_and_names_of_all_scripts_stay(capsys: pytest.CaptureFixture[str]) -> None:
    echo(f"{NAMES}\tA\n{EVIL}\ud800\ue000")
    said = capsys.readouterr().out
    assert controls(said) == set()
    assert said == f"{NAMES}\tA\n\\x1b[2J\\x9b31m\\u202edrow\\u2066\\x07\\r\\x00\\ud800\\ue000\n"


def test_a_line_stays_one_line_and_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"first\n{EVIL}\x85error: forged\u2028 " + "x" * 10_000, err=True)
    said = capsys.readouterr().err
    assert controls(said) == set()
    assert said.count("\n") == 1
    assert LONGEST_LINE < len(said) < LONGEST_LINE + 100


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_a_character_gets_another(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    echo("é 猫")
    sys.stdout.flush()
    assert written.getvalue() == "é 猫\n".encode(encoding, "backslashreplace")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints, on both streams."""
    with pytest.raises(SystemExit):
        main(list(arguments))
    return "".join(capsys.readouterr())


@pytest.mark.usefixtures("default_signals")
def test_no_word_of_an_index_or_a_lock_reaches_the_terminal_as_it_is(
    tiny_run: Path, tiny_teacher_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "run"
    shutil.copytree(tiny_run, place)
    raw = json.loads((place / INDEX).read_text())
    raw["run"]["settings"] |= {"steps": EVIL, EVIL: 1}
    (place / INDEX).write_text(json.dumps(raw))
    again = ["generate", "--teacher", str(tiny_teacher_path), "--per-class", "10", "--out", str(place), "--address"]
    said = run(capsys, *again, "none", "--resume", "--shard-size", "25", "--views", "0")
    assert "holds another run" in said
    raw["complete"], raw["shardlist"][0]["url"] = EVIL, EVIL
    (place / INDEX).write_text(json.dumps(raw))
    said += run(capsys, "status", str(place))
    said += run(capsys, "verify", str(tmp_path / f"none{EVIL[:-1]}"))
    (place / LOCK).write_text(json.dumps({**process_facts(os.getpid()), "owner": EVIL, "command": EVIL, "host": EVIL}))
    locked = run(capsys, *again, "none", "--resume")
    assert "is working on" in locked
    assert "[2J" in locked
    assert controls(said + locked) == set()
