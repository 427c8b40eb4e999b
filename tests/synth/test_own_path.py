"""No file of the working folder, such as one beside a downloaded checkpoint, is imported by any process of ours."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.synth.conftest import Run

HOSTILE = ("click", "json", "multiprocessing", "numpy", "PIL", "psutil", "ray", "safetensors", "torch", "webdataset")
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
def folder(tmp_path: Path, tiny_teacher_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a checkpoint, and modules that leave a mark when they run."""
    here = tmp_path / "download"
    here.mkdir()
    shutil.copy(tiny_teacher_path, here / "teacher.safetensors")
    for module in HOSTILE:
        (here / f"{module}.py").write_text(f"open({str(tmp_path / f'ran-{module}')!r}, 'w').close()\n")
    monkeypatch.chdir(here)
    return here


def marks(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.glob("ran-*"))


def run_script(folder: Path, *lines: str) -> None:
    """Run command lines from a script that lies elsewhere, as an installed one does."""
    script = folder.parent / "script"
    script.write_text(SCRIPT.format(lines=lines))
    done = subprocess.run([sys.executable, script], env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def environment() -> dict[str, str]:
    """The tests' environment without the variable that keeps Python off the working folder."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}


def test_a_ray_worker_imports_nothing_from_the_working_folder(folder: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")
    run_script(folder, "synth generate --per-class 2 --steps 2 --address local")
    assert (folder / "shards" / "index.json").exists()
    assert marks(folder) == []


def test_without_ray_and_in_unlearning_nothing_is_imported_from_the_working_folder(folder: Path) -> None:
    run_script(
        folder,
        "synth generate --per-class 2 --steps 2 --address none",
        "unlearn distill --shards shards --forget 0 --out student --steps 2 --batch-size 8 --threads 1",
    )
    assert (folder / "student" / "student.safetensors").exists()
    assert marks(folder) == []


@pytest.mark.parametrize("package", ["synth", "unlearn"])
def test_python_m_imports_nothing_else_from_the_working_folder(folder: Path, package: str) -> None:
    subprocess.run([sys.executable, "-m", package, "--version"], env=environment(), check=True)
    assert marks(folder) == []


def test_a_process_that_a_command_starts_does_not_search_the_working_folder(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As loader workers do on macOS, where Python starts them anew."""
    monkeypatch.delenv("PYTHONSAFEPATH")
    assert run("--version")[0] == 0
    child = multiprocessing.get_context("spawn").Process(target=os.getcwd)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert marks(folder) == []
