"""The files that a person runs, and what the documentation says about tests."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "script",
    [
        *("scripts/demo", "scripts/test", "scripts/pictures", "scripts/install.sh", "scripts/test-pythons"),
        *("scripts/slurm.sbatch", ".ci/run"),
    ],
)
def test_shell_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.parametrize("code", [0, 1])
def test_ci_fails_if_and_only_if_the_tests_fail(tmp_path: Path, code: int) -> None:
    for name, text in (("scripts/test", f"echo tested in $PWD\nexit {code}"), ("bin/chromium", "")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == (f"tested in {tmp_path}\n", code)


@pytest.mark.parametrize("script", ["bench-cluster", "bench-distill", "reproduce"])
def test_a_script_explains_itself(script: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.stdout.startswith("Usage:")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_citation_names_the_version_and_the_licence_of_the_package() -> None:
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    citation = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {package['metadata']['version']}" in citation
    assert f"license: {package['metadata']['license']}" in citation


def test_every_test_that_the_documentation_names_exists() -> None:
    named = {name for page in ROOT.glob("docs/**/*.md") for name in re.findall(r"test_\w+\.py::\w+", page.read_text())}
    assert len(named) > 10
    there = {
        f"{path.name}::{name}"
        for path in ROOT.glob("tests/**/test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert sorted(named - there) == []


@pytest.mark.long
def test_the_demo_runs_from_end_to_end() -> None:
    done = subprocess.run([ROOT / "scripts" / "demo"], capture_output=True, text=True, check=True)
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert float(rows["original"][0]) > 95
    assert float(rows["student"][0]) > 95
    assert rows["student"][1] == "0.00"
    assert float(rows["all"][1]) > 90  # images that the retrained reference recognises, %
    assert (ROOT / "runs" / "demo" / "grid.png").exists()


@pytest.mark.long
def test_the_benchmark_of_a_gpu_runs_without_one(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, "scripts/bench-gpu", "--device", "cpu", "--quick", "--out", str(page)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=500)
    text = page.read_text()
    assert "| resnet18 | the same bytes | the same bytes |" in text
    assert "| the same again |" in text
    assert "| the same |" in text
