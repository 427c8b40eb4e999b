"""The help: options under headings, the rare ones behind --help-all, and defaults for what they are."""

import re

import pytest
from click.testing import CliRunner, Result

from synth.commands.main import main as synth
from unlearn.commands.main import main as unlearn


def shown(group: str, *arguments: str) -> str:
    found: Result = CliRunner().invoke(synth if group == "synth" else unlearn, list(arguments), terminal_width=200)
    assert found.exit_code == 0, found.output
    return found.output


def options_in(text: str) -> list[str]:
    return re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("group", "command"),
    [
        ("synth", "generate"),
        *(("unlearn", name) for name in ("train", "distill", "gkt", "edit", "audit", "sweep", "evaluate")),
    ],
)
def test_every_option_stands_under_a_heading_and_help_all_shows_more(group: str, command: str) -> None:
    usual, everything = shown(group, command, "--help"), shown(group, command, "--help-all")
    assert set(options_in(usual)) <= set(options_in(everything))
    assert "Options:" not in everything
    assert everything.index("--help-all") > everything.rindex("--device")
    assert len(options_in(everything)) == len(set(options_in(everything)))


def test_rare_options_are_hidden_until_asked_for() -> None:
    assert "--shard-timeout" not in shown("synth", "generate", "--help")
    assert "--shard-timeout" in shown("synth", "generate", "--help-all")


def test_settings_stand_under_their_method_and_shared_ones_name_each_default() -> None:
    text = shown("synth", "generate", "--help-all")
    shared, _, own = text.partition("Settings of --method deepinversion:")
    assert "--smoothing" in own or "--smoothing" in shared
    assert re.search(r"--tv-l2 ", own.partition("Settings of --method fast:")[0])
    assert re.search(r"--meta-steps ", own.partition("Settings of --method fast:")[2])
    forms = "small photographs: 30 (deepinversion); photographs: 200 (deepinversion)"
    assert f"[default: 100 (deepinversion), 5 (fast); {forms}]" in " ".join(shared.split())


def test_commands_stand_in_the_order_of_the_work() -> None:
    text = shown("unlearn", "--help")
    places = [
        text.index(f"\n  {name} ") for name in ("train", "import", "distill", "evaluate", "audit", "report", "verify")
    ]
    assert places == sorted(places)
