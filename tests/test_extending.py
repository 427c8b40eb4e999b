"""The examples of docs/extending.md work: from a package of one's own, and as one new file here."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
EXAMPLES = dict(re.findall(r'```python title="(\w+)\.py"\n(.*?)```', PAGE, re.DOTALL))
GROUPS = {"noise": "synthesis_methods", "mean_row": "unlearning_methods", "mlp": "architectures"}
# Where the file goes in this repository, and the list entry that the new name goes before.
PLACES = {
    "noise": ("synth/methods", "synth/methods/__init__.py", '"deepinversion"'),
    "mean_row": ("unlearn/methods", "unlearn/methods/__init__.py", '"distill"'),
    "mlp": ("synth/checkpoint/architectures", "synth/checkpoint/architectures/__init__.py", '"lenet5"'),
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples as an installed package: its modules, and the entry points that pip would write."""
    place = tmp_path_factory.mktemp("site")
    (place / "my_extension").mkdir()
    (place / "my_extension" / "__init__.py").write_text("")
    points = ""
    for name, code in EXAMPLES.items():
        (place / "my_extension" / f"{name}.py").write_text(code)
        points += f"[data_free_unlearning.{GROUPS[name]}]\n{name} = my_extension.{name}\n"
    info = place / "my_extension-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-extension\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    return place


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository's code with each example's file in its folder, and its name in the list."""
    place = tmp_path_factory.mktemp("checkout")
    for name in ("synth", "unlearn"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (folder, list_file, before) in PLACES.items():
        (place / folder / f"{name}.py").write_text(EXAMPLES[name])
        text = (place / list_file).read_text()
        assert text.count(before) == 1, f"{list_file} lists {before} once"
        (place / list_file).write_text(text.replace(before, f'"{name}", {before}'))
    return place


@pytest.fixture(params=["package", "checkout"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> "Command":
    return Command(request.getfixturevalue(request.param), tmp_path)


class Command:
    """A command line with the extension on its path, in a folder of its own."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)])}

    def __call__(self, program: str, *arguments: object) -> str:
        command = [sys.executable, "-m", program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, env=self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout


def test_every_example_of_the_page_is_tested() -> None:
    assert set(EXAMPLES) == set(GROUPS) == set(PLACES)


def test_the_synthesis_method_makes_a_run(command: Command, tiny_teacher_path: Path) -> None:
    assert "--spread" in command("synth", "generate", "--help")
    given = ["--teacher", tiny_teacher_path, "--per-class", 3, "--address", "none", "--method", "noise"]
    command("synth", "generate", *given, "--preset", "faint", "--out", "run")
    assert "all as the index says" in command("synth", "verify", "run")


def test_the_unlearning_method_makes_a_student(command: Command, tiny_teacher_path: Path) -> None:
    command("unlearn", "mean_row", "--teacher", tiny_teacher_path, "--forget", 0, "--out", "run", "--shift", -9)
    shown = command("unlearn", "evaluate", "run/student.safetensors", "--data", "digits", "--forget", 0, "--json")
    assert '"forget": 0.0' in shown


def test_the_architecture_is_trained_and_synthesised_from(command: Command) -> None:
    assert "mlp" in command("unlearn", "train", "--help")
    command(
        "unlearn", "train", "--arch", "mlp", "--width", 0.5, "--data", "digits", "--epochs", 1, "--out", "t.safetensors"
    )
    given = ["--teacher", "t.safetensors", "--per-class", 1, "--address", "none", "--steps", 1]
    command("synth", "generate", *given, "--out", "run")
    assert "(mlp)" in command("synth", "status", "run")
