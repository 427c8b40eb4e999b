"""What a method's file declares is what it is when it runs."""

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from synth.basics.declared import declared
from synth.basics.plugins import Plugins
from synth.methods import METHODS as SYNTHESIS
from unlearn.methods import METHODS as UNLEARNING

EVERY_METHOD = [pytest.param(methods, name, id=name) for methods in (SYNTHESIS, UNLEARNING) for name in methods.names()]


def fields_of(settings: Any) -> list[tuple[Any, ...]]:
    types = typing.get_type_hints(settings)
    return [(f.name, types[f.name], f.default, dict(f.metadata)) for f in dataclasses.fields(settings)]


@pytest.mark.parametrize(("methods", "name"), EVERY_METHOD)
def test_declared_settings_and_presets_are_those_of_the_running_file(methods: Plugins, name: str) -> None:
    read, ran = methods.declared(name), methods.find(name)
    assert read.SETTINGS.__name__ == ran.SETTINGS.__name__
    assert fields_of(read.SETTINGS) == fields_of(ran.SETTINGS)
    assert {n: dataclasses.asdict(s) for n, s in read.PRESETS.items()} == {
        n: dataclasses.asdict(s) for n, s in ran.PRESETS.items()
    }
    assert [names for names, *_ in getattr(read, "IDLE", ())] == [names for names, *_ in getattr(ran, "IDLE", ())]


def test_reading_the_declarations_does_not_load_torch() -> None:
    script = (
        "import sys\n"
        "from synth.methods import METHODS as synthesis\n"
        "from unlearn.methods import METHODS as unlearning\n"
        "for methods in (synthesis, unlearning):\n"
        "    for name in methods.names(): methods.declared(name)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Write a module's text, and give the name that it can be found by."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        name = f"declares_{abs(hash((request.node.name, text)))}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


HEAD = (
    "from __future__ import annotations\n"
    "from dataclasses import dataclass\n"
    "import torch\n"
    "from synth.basics.settings import Settings, setting\n"
)


def test_a_constant_that_needs_torch_is_left_out(module: Any) -> None:
    found = declared(module(HEAD + "DEVICE = torch.device('cpu')\nBOUND = 3\n"))
    assert found.BOUND == 3
    assert not hasattr(found, "DEVICE")


def test_a_settings_class_that_needs_torch_is_an_error_rather_than_missing(module: Any) -> None:
    text = HEAD + "@dataclass\nclass FooSettings(Settings):\n    size: int = setting(torch.numel, 'x')\n"
    with pytest.raises(NameError, match="torch"):
        declared(module(text))


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match="no module named nowhere_at_all"):
        declared("nowhere_at_all")
