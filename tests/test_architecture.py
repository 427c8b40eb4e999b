"""One arrow, one direction: `unlearn` may import from `synth`, nothing but `synth.executors.ray` imports Ray."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("synth", "unlearn")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__main__.py"
}


def imported(path: Path) -> set[str]:
    """The full names of what a file imports anywhere in it, with `from a import b` as a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_the_modules_are_found() -> None:
    assert {"synth", "synth.executors.ray", "synth.methods.deepinversion", "unlearn.methods.distill"} <= set(MODULES)


def test_synth_never_imports_unlearn() -> None:
    assert [name for name, path in MODULES.items() if name.startswith("synth") and "unlearn" in packages(path)] == []


def test_ray_is_imported_in_one_module() -> None:
    assert [name for name, path in MODULES.items() if "ray" in packages(path)] == ["synth.executors.ray"]


def test_nothing_of_unlearn_reaches_the_cluster() -> None:
    assert [
        name for name, path in MODULES.items() if name.startswith("unlearn") and "synth.executors.ray" in imported(path)
    ] == []


def test_the_package_itself_imports_nothing() -> None:
    assert imported(MODULES["synth"]) == set()
    assert imported(MODULES["unlearn"]) == set()


def test_no_module_is_a_drawer_of_utilities() -> None:
    assert [name for name in MODULES if name.split(".")[-1] in ("utils", "util", "helpers", "misc", "common")] == []


@pytest.mark.parametrize("package", ["synth", "unlearn"])
def test_every_module_but_the_cluster_loads_without_ray(package: str) -> None:
    names = [name for name in MODULES if name.split(".")[0] == package and name != "synth.executors.ray"]
    script = "import sys; sys.modules['ray'] = None\nfrom importlib import import_module\nfor n in sys.argv[1:]: import_module(n)"
    done = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["synth", "unlearn"])
def test_help_loads_neither_torch_nor_ray(command: str) -> None:
    script = (
        f"import sys; from {command}.commands.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print({'torch', 'ray'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert "Usage:" in done.stdout
    assert done.stderr == "set()\n"
