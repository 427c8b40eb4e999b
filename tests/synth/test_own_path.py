"""No file of the working folder, such as one beside a downloaded checkpoint, is imported by any process of ours."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import put_hostile_modules
from tests.synth.conftest import Run

SCRIPT = """
from importlib import import_module
for line in {lines!r}:
    package, *arguments = line.split()
    try:
        import_module(package + ".commands.main").main(arguments)
    except SystemExit as ended:
        assert not ended.code
"""


@pytest.fixture
def marks(tmp_path: Path, tiny_teacher_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of marks. The working folder has a checkpoint, and modules that leave a mark when they run."""
    shutil.copy(tiny_teacher_path, tmp_path / "teacher.safetensors")
    monkeypatch.chdir(tmp_path)
    return put_hostile_modules(tmp_path)


def run_script(script: Path, *lines: str) -> None:
    """Run command lines from a script that lies elsewhere, as an installed one does."""
    script.write_text(SCRIPT.format(lines=lines))
    done = subprocess.run([sys.executable, script], env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def environment() -> dict[str, str]:
    """The tests' environment without the variable that keeps Python off the working folder."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}


def test_without_ray_and_in_unlearning_nothing_is_imported_from_the_working_folder(
    marks: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run_script(
        tmp_path_factory.mktemp("bin") / "script",
        "synth generate --per-class 2 --steps 2 --address none",
        "unlearn distill --shards shards --forget 0 --out student --steps 2 --batch-size 8 --threads 1",
    )
    assert Path("student/student.safetensors").exists()
    assert list(marks.iterdir()) == []


@pytest.mark.parametrize("package", ["synth", "unlearn"])
def test_python_m_imports_nothing_else_from_the_working_folder(marks: Path, package: str) -> None:
    subprocess.run([sys.executable, "-m", package, "--version"], env=environment(), check=True)
    assert list(marks.iterdir()) == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 knows no PYTHONSAFEPATH")
def test_a_process_that_a_command_starts_does_not_search_the_working_folder(
    marks: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As loader workers do on macOS, where Python starts them anew."""
    monkeypatch.delenv("PYTHONSAFEPATH")
    assert run("--version")[0] == 0
    child = multiprocessing.get_context("spawn").Process(target=os.getcwd)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert list(marks.iterdir()) == []
