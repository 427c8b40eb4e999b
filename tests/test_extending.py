"""The examples of docs/extending.md work: from a package of one's own, and as one new file here."""

import json
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
GROUPS = {
    "noise": "synthesis_methods",
    "mean_row": "unlearning_methods",
    "second_guess": "audit_measures",
    "parity": "data_sets",
    "two_layers": "architectures",
}
# The file's folder in this repository, the file with the list, and the entry of the list that the new name goes before.
PLACES: dict[str, tuple[str, str | None, str | None]] = {
    "noise": ("synth/methods", "synth/methods/__init__.py", '"deepinversion"'),
    "mean_row": ("unlearn/methods", "unlearn/methods/__init__.py", '"distill"'),
    "second_guess": ("unlearn/auditing/measures", "unlearn/auditing/measures/__init__.py", '"resurrection"'),
    "parity": ("unlearn/data_sets", None, None),
    "two_layers": ("synth/checkpoint/architectures", "synth/checkpoint/architectures/__init__.py", '"resnet20"'),
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
        if list_file is None:
            continue
        text = (place / list_file).read_text()
        assert before is not None
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


def test_the_data_set_and_the_architecture_train_a_model(command: Command) -> None:
    shown = command(
        "unlearn", "train", "--arch", "two_layers", "--data", "parity", "--epochs", 1, "--out", "m.safetensors"
    )
    assert "wrote m.safetensors" in shown
    assert '"even"' in command("unlearn", "evaluate", "m.safetensors", "--data", "parity", "--forget", 0, "--json")


def test_the_measure_stands_in_the_record_and_on_the_page(
    command: Command, tiny_teacher_path: Path, tiny_run: Path
) -> None:
    teacher = ["--teacher", tiny_teacher_path, "--forget", 0]
    command("unlearn", "edit", "--kind", "masked-logit", *teacher, "--out", "masked")
    quick = ["--repeats", 2, "--draws", 2, "--relearn-steps", 2, "--inversion-steps", 2, "--random-models", 1]
    command("unlearn", "audit", "masked", *teacher, "--shards", tiny_run, *quick, "--out", "audit")
    record = json.loads((command.folder / "audit" / "audit.json").read_text())
    measured = {m["name"]: m["readings"]["masked logit"]["mean"] for m in record["measurements"]}
    assert measured["second-guess"] == 0
    command("unlearn", "report", "audit", "-o", "page.html")
    page = (command.folder / "page.html").read_text()
    assert "forget class among the two likeliest answers" in page
    assert "A model that only suppresses its first answer" in page
    assert "does not hold" not in command("unlearn", "verify", "page.html")
