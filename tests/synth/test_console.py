import dataclasses
from dataclasses import dataclass
from typing import Any

import click
import pytest

from synth.basics.errors import UsageError, UserError
from synth.basics.settings import require, setting
from synth.checkpoint.card import check_classes
from synth.commands.console import Console, NumberList
from synth.commands.options import settings_flags, settings_from_flags


@dataclass(frozen=True, kw_only=True)
class First:
    rate: float = setting(0.5, "how fast")
    steps: int = setting(10, "how long")
    mirror: bool = setting(False, "left for right")
    limit: float | None = setting(None, "how far")
    kind: str = setting("plain", "which", choices=("plain", "fancy"))

    def __post_init__(self) -> None:
        require(self.rate > 0, f"rate must be above 0, not {self.rate}")


@dataclass(frozen=True, kw_only=True)
class Second:
    steps: int = setting(20, "how long")
    depth: int = setting(3, "how deep")


def parsed(*arguments: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    @click.command()
    @settings_flags({"first": First, "second": Second}, {"first": "First", "second": "Second"}, shared="Both")
    def command(**flags: Any) -> None:
        seen.update(flags)

    command.main(list(arguments), standalone_mode=False)
    return seen


def test_no_flags_are_the_defaults() -> None:
    assert settings_from_flags(First(), parsed(), "first") == First()
    assert settings_from_flags(Second(), parsed(), "second") == Second()


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["--rate", "0.25"], {"rate": 0.25}),
        (["--steps", "3"], {"steps": 3}),
        (["--mirror"], {"mirror": True}),
        (["--no-mirror"], {}),
        (["--limit", "1.5"], {"limit": 1.5}),
        (["--kind", "fancy", "--steps=4"], {"kind": "fancy", "steps": 4}),
    ],
)
def test_a_flag_changes_its_own_field(arguments: list[str], changes: dict[str, Any]) -> None:
    assert settings_from_flags(First(), parsed(*arguments), "first") == dataclasses.replace(First(), **changes)


def test_a_flag_of_another_method_is_refused_rather_than_ignored() -> None:
    with pytest.raises(UsageError, match="--rate has no effect on --method second: leave it out"):
        settings_from_flags(Second(), parsed("--rate", "1"), "--method second")


def test_a_value_out_of_range_is_a_usage_error_in_the_settings_words() -> None:
    with pytest.raises(UsageError, match=r"rate must be above 0, not -1.0"):
        settings_from_flags(First(), parsed("--rate", "-1"), "first")
    with pytest.raises(click.BadParameter):
        parsed("--kind", "odd")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", (0,)), ("3,8", (3, 8)), ("1-4", (1, 2, 3, 4)), (" 8, 1 - 3,2", (1, 2, 3, 8)), ("5-5", (5,))],
)
def test_a_list_of_numbers_is_sorted_and_without_repeats(text: str, numbers: tuple[int, ...]) -> None:
    assert NumberList().convert(text, None, None) == numbers


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "5-2", "1,,2", "1.5", "0x1", "1234567", "1-2-3", "²"])
def test_a_malformed_list_of_numbers_shows_how_to_write_one(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no list of numbers: write it like 0 or 3,8 or 1-9"):
        NumberList().convert(text, None, None)


def test_a_class_out_of_range_says_which_there_are() -> None:
    check_classes((0, 9), 10, "class")
    with pytest.raises(UsageError, match=r"forget class 12 is out of range: the data has 10 classes \(0-9\)"):
        check_classes((3, 12), 10, "forget class", "the data")


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("two\nlines   of text"), 1, "error: two lines of text"),
        (UsageError("no"), 2, "error: no"),
        (click.UsageError("Odd."), 2, "error: Odd (see 'it fail --help')"),
        (click.ClickException("Bad."), 1, "error: Bad."),
        (
            KeyboardInterrupt(),
            130,
            "error: interrupted: start the same command again",
        ),
        (click.Abort(), 130, "error: interrupted: start the same command again"),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.group(cls=Console)
    def group() -> None:
        pass

    @group.command()
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        group.main(["fail"], prog_name="it")
    assert ended.value.code == code
    out, err = capsys.readouterr()
    assert (out, err.lstrip("\n")) == ("", f"{line}\n")  # click ends the terminal's ^C with a line break


@pytest.mark.usefixtures("default_signals")
def test_a_bug_keeps_its_traceback() -> None:
    @click.group(cls=Console)
    def group() -> None:
        pass

    @group.command()
    def fail() -> None:
        raise ZeroDivisionError("our mistake")

    with pytest.raises(ZeroDivisionError):
        group.main(["fail"], prog_name="it")
