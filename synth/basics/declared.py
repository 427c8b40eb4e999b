"""What a method's file declares at its top, read without running the file.

The command line needs a method's settings, presets and help text for `--help`, and running the file would load torch,
which takes two seconds. Settings are dataclasses of literals, so their statements run on their own.
"""

from __future__ import annotations
import __future__

import ast
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# What a declaration may import: the standard library, these modules, and declarations of its siblings.
LIGHT = ("synth.basics.errors", "synth.basics.settings", "unlearn.settings")
ANNOTATIONS = __future__.annotations.compiler_flag


@cache
def declared(module: str) -> SimpleNamespace:
    """The settings classes of a module, and those of its constants that need no heavy import, by their names.

    Raises:
        ModuleNotFoundError: there is no such module.
        NameError: a settings class uses a name that would take a heavy import.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module named {module}", name=module)
    names: dict[str, Any] = {"__name__": __name__}  # dataclasses look up the module that defines them
    for statement in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(statement, ast.ImportFrom) and not is_light(statement.module or ""):
            names |= declared_by_sibling(statement, module)
        elif isinstance(statement, ast.ClassDef) and statement.name.endswith("Settings"):
            run(statement, spec.origin, names)
        elif is_light_import(statement) or isinstance(statement, (ast.Assign, ast.AnnAssign)):
            try:
                run(statement, spec.origin, names)
            except NameError:  # a constant that needs torch, or a function of the file
                continue
    return SimpleNamespace(**{name: value for name, value in names.items() if not name.startswith("__")})


def run(statement: ast.stmt, path: str, names: dict[str, Any]) -> None:
    exec(compile(ast.Module([statement], []), path, "exec", flags=ANNOTATIONS, dont_inherit=True), names)


def is_light(module: str) -> bool:
    return module in LIGHT or module.partition(".")[0] in sys.stdlib_module_names


def is_light_import(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Import):
        return all(is_light(alias.name) for alias in statement.names)
    return isinstance(statement, ast.ImportFrom)  # the others went to `declared_by_sibling`


def declared_by_sibling(statement: ast.ImportFrom, module: str) -> dict[str, Any]:
    """The names that a file imports from what another file of its package declares."""
    assert statement.module is not None
    if statement.module.rpartition(".")[0] != module.rpartition(".")[0]:
        return {}
    there = vars(declared(statement.module))
    return {alias.asname or alias.name: there[alias.name] for alias in statement.names if alias.name in there}
