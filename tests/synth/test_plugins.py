"""Methods and measures from installed packages are found by their entry points."""

from pathlib import Path

import pytest

from synth.basics.errors import UsageError
from synth.basics.plugins import Plugins

COLOURS = Plugins(kind="colour", package="synth.methods", own=("fast",), group="data_free_unlearning.test_colours")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package `theirs` with a module `blue`, and its metadata as pip writes it."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("")
    (tmp_path / "theirs" / "blue.py").write_text("PRESETS = {}\n")
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{COLOURS.group}]\nblue = theirs.blue\nfast = theirs.blue\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_a_module_of_an_installed_package_is_found_by_its_entry_point() -> None:
    assert COLOURS.names() == ("fast", "blue")
    assert COLOURS.find("blue").__name__ == "theirs.blue"
    assert COLOURS.declared("blue").PRESETS == {}


@pytest.mark.usefixtures("installed")
def test_an_entry_point_cannot_take_the_place_of_our_own_module() -> None:
    assert COLOURS.find("fast").__name__ == "synth.methods.fast"


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="there is no colour 'green': choose fast"):
        COLOURS.find("green")
