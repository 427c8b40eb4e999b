"""The rooms of both packages and what may import what. Imports inside functions count as well."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module may import from its own room and from the rooms above it. Rooms on one line are equals.
ROOMS = {
    "synth": [
        ["basics"],
        ["checkpoint"],
        ["shards"],
        ["methods"],
        ["making"],
        ["executors"],
        ["run"],
        ["commands"],
        ["api"],
        ["__main__"],
    ],
    "unlearn": [
        ["samples"],
        ["step_memory", "fine_tuning"],
        [
            "settings",
            "real_images",
            "data_sets",
            "data",
            "regression",
            "regression_text",
            "points",
            "drawn_points",
            "evaluation",
            "evaluation_text",
            "optimise",
            "training",
        ],
        ["methods"],
        ["run"],
        ["auditing"],
        ["report"],
        ["exporting"],
        ["commands"],
        ["api"],
        ["__main__"],
    ],
}
FLOORS = {(package, room): floor for package in ROOMS for floor, rooms in enumerate(ROOMS[package]) for room in rooms}
Files = Mapping[str, Path]
# Calls that open a file by its path, or replace one. `.open` is that of a path; an image's has an owner of that name.
OPENING = {
    *("open", ".open", ".read_bytes", ".read_text", ".write_bytes", ".write_text", ".touch", ".rename", ".savefig"),
    *("os.open", "os.replace", "os.link", "Image.open", "json.load", "json.dump", "json.loads"),
    *("torch.load", "torch.save", "np.load", "np.save", "np.savez", "np.fromfile", "np.memmap", "pickle.load"),
    *("safe_open", "load_file", "save_file", "tarfile.open", "zipfile.ZipFile", "click.File", "shutil.copy"),
}
# The one reader, the one writer, the one decoder of images and the one reader of JSON; and calls whose files are ours.
MAY_OPEN = {
    *("synth.basics.regular_files: .open", "synth.basics.regular_files: os.open"),
    *("synth.basics.disk: .open", "synth.basics.disk: os.open", "synth.basics.disk: os.link"),
    *("synth.basics.image_files: .open", "synth.basics.image_files: Image.open"),
    "synth.basics.free_memory: .read_text",  # /proc and /sys
    "synth.basics.declared: .read_text",  # the source of our own modules
    "synth.basics.drawing: .savefig",  # into memory
    *(
        "synth.checkpoint.importing.weights_file: torch.load",
        "synth.checkpoint.importing.inert: torch.load",
    ),  # in memory
    *("synth.checkpoint.importing.diagnosis: zipfile.ZipFile", "synth.checkpoint.pytorch_zip: zipfile.ZipFile"),  # too
    "synth.run.holder: .read_text",  # /proc
    *("synth.commands.output: .open", "synth.commands.output: os.open"),  # /dev/null
    *("unlearn.auditing.audit_folder: torch.load", "unlearn.auditing.audit_folder: torch.save"),  # in memory
    "unlearn.auditing.audit_inputs: .read_bytes",  # the source of our own modules
    *("unlearn.exporting.like: torch.save", "unlearn.exporting.plain: torch.save"),  # in memory
    "synth.basics.markdown: .read_text",  # our own templates
    *("unlearn.run.folder: torch.load", "unlearn.run.folder: torch.save"),  # in memory
    *("unlearn.auditing.record.schema: .read_text", "unlearn.auditing.record.schema: json.loads"),  # our own schema
}
Imports = Mapping[str, set[str]]


def modules_in(root: Path) -> Files:
    """The file of each module of both packages, by the module's full name."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ROOMS
        for path in sorted((root / package).rglob("*.py"))
    }


def imported(path: Path) -> set[str]:
    """The full names of everything that a file imports; `from a import b` counts as a and as a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def imports_between(files: Files) -> Imports:
    """Which of the modules each module imports."""
    return {name: {other for other in imported(path) if other in files} - {name} for name, path in files.items()}


def floor_of(module: str) -> int:
    """How far down its package's list a module's room stands; the package itself stands above all rooms."""
    package, _, inside = module.partition(".")
    return FLOORS[package, inside.partition(".")[0]] if inside else -1


def climbing_imports(imports: Imports) -> list[str]:
    """Imports of a room that stands below the importing module's own room."""
    return [
        f"{module} imports {other}"
        for module in imports
        for other in sorted(imports[module])
        if module.partition(".")[0] == other.partition(".")[0] and floor_of(other) > floor_of(module)
    ]


def importers_of(files: Files, package: str) -> list[str]:
    """The modules that import a package, ours or a foreign one."""
    return [name for name, path in files.items() if package in {i.partition(".")[0] for i in imported(path)}]


def called(path: Path) -> set[str]:
    """What a file calls, as the last two parts of each name: `open`, `os.replace`, and `.read_text` of any object."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node).startswith("json.loads(json.dumps("):
            continue  # a value as a reader of its JSON sees it
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names.add(node.func.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            names |= {f".{node.func.attr}", f"{owner.id}.{node.func.attr}" if isinstance(owner, ast.Name) else ""}
    return names


def openers(files: Files) -> list[str]:
    """The modules that open, decode or replace a file by themselves, each with how it does so."""
    return [f"{name}: {call}" for name, path in files.items() for call in sorted(called(path) & OPENING)]


def cycle_in(imports: Imports) -> list[str]:
    """One chain of imports that comes back to its first module; empty where there is none."""
    finished: set[str] = set()

    def search(module: str, chain: list[str]) -> list[str]:
        if module in chain:
            return [*chain[chain.index(module) :], module]
        if module in finished:
            return []
        for other in sorted(imports[module]):
            found = search(other, [*chain, module])
            if found:
                return found
        finished.add(module)
        return []

    return next(filter(None, (search(module, []) for module in imports)), [])


def shared_names(files: Files) -> list[str]:
    """Names that two modules of one package have in common. A folder's `__init__` has no name of its own."""
    counts = Counter(
        (name.partition(".")[0], path.stem) for name, path in files.items() if not path.stem.startswith("__")
    )
    return [f"{package}: {stem}" for (package, stem), count in counts.items() if count > 1]


FILES = modules_in(ROOT)


def test_the_modules_are_found() -> None:
    assert {"synth", "synth.executors.ray", "synth.methods.deepinversion", "unlearn.methods.distill"} <= set(FILES)


def test_every_module_is_in_a_room_of_the_list() -> None:
    places = {(name.split(".")[0], name.split(".")[1]) for name in FILES if "." in name}
    assert sorted(places - set(FLOORS)) == []


def test_a_room_imports_only_from_the_rooms_above_it() -> None:
    assert climbing_imports(imports_between(FILES)) == []


def test_no_imports_go_in_a_circle() -> None:
    assert cycle_in(imports_between(FILES)) == []


def test_no_two_modules_of_a_package_share_a_name() -> None:
    assert shared_names(FILES) == []


def test_synth_never_imports_unlearn() -> None:
    assert [name for name in importers_of(FILES, "unlearn") if name.startswith("synth")] == []


def test_click_is_imported_in_the_commands_only() -> None:
    assert [name for name in importers_of(FILES, "click") if name.split(".")[1] != "commands"] == []


def test_ray_is_imported_in_one_module() -> None:
    assert importers_of(FILES, "ray") == ["synth.executors.ray"]


def test_files_are_opened_in_one_place_and_written_in_one_place() -> None:
    assert sorted(set(openers(FILES)) - MAY_OPEN) == []
    assert sorted(MAY_OPEN - set(openers(FILES))) == []  # the list holds nothing more


def test_what_the_commands_print_goes_through_one_module() -> None:
    printing = {name for name, path in FILES.items() if called(path) & {"print", "click.echo", "click.secho"}}
    assert printing == {"synth.commands.printing", "synth.basics.progress"}  # progress prints numbers only


def test_no_module_of_unlearn_imports_the_cluster() -> None:
    importers = [name for name, others in imports_between(FILES).items() if "synth.executors.ray" in others]
    assert [name for name in importers if name.startswith("unlearn")] == []


def test_the_package_itself_imports_no_module() -> None:
    allowed = {"importlib", "importlib.import_module", "typing", "typing.Any"}
    assert imported(FILES["synth"]) == allowed
    assert imported(FILES["unlearn"]) == allowed


def test_no_module_is_a_drawer_of_utilities() -> None:
    assert [name for name in FILES if name.split(".")[-1] in ("utils", "util", "helpers", "misc", "common")] == []


@pytest.fixture
def broken_house(tmp_path: Path) -> Files:
    """A small tree that breaks each rule once, and keeps it once beside that."""
    sources = {
        "synth/__init__.py": "",
        "synth/basics/errors.py": "def later():\n    from synth.run import lock\n",  # a room below, in a function
        "synth/run/lock.py": "import click\nfrom synth.basics.errors import later\nimport unlearn.data\n",
        "synth/run/errors.py": "from ray.util import metrics\n",  # the name is taken
        "synth/run/open.py": "a = path.with_name('x').read_text(), open('y'), os.replace('y', 'z')\n",
        "synth/run/run.py": "",
        "unlearn/__init__.py": "",
        "unlearn/data.py": "from synth.basics import errors\n",  # closes a circle
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return modules_in(tmp_path)


def test_the_checks_find_what_breaks_each_rule(broken_house: Files) -> None:
    imports = imports_between(broken_house)
    assert climbing_imports(imports) == ["synth.basics.errors imports synth.run.lock"]
    assert cycle_in(imports) == ["synth.basics.errors", "synth.run.lock", "synth.basics.errors"]
    assert shared_names(broken_house) == ["synth: errors"]
    assert openers(broken_house) == [f"synth.run.open: {call}" for call in (".read_text", "open", "os.replace")]
    assert importers_of(broken_house, "unlearn") == importers_of(broken_house, "click") == ["synth.run.lock"]
    assert importers_of(broken_house, "ray") == ["synth.run.errors"]


@pytest.mark.parametrize("package", ["synth", "unlearn"])
def test_every_module_but_the_cluster_loads_without_ray(package: str) -> None:
    left_out = ("synth.executors.ray", f"{package}.__main__")
    names = [name for name in FILES if name.split(".")[0] == package and name not in left_out]
    script = (
        "import sys; sys.modules['ray'] = None\n"
        "from importlib import import_module\n"
        "for name in sys.argv[1:]: import_module(name)"
    )
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
