"""The rules of the verdict and the definition of each measure, as their own files state them."""

from __future__ import annotations

import inspect
from importlib import import_module

from unlearn.audit.judgement import verdict
from unlearn.audit.measures import MEASURES


def rules() -> str:
    return inspect.cleandoc(verdict.__doc__ or "")


def definitions() -> list[tuple[str, str]]:
    return [(name, inspect.cleandoc(import_module(module).__doc__ or "")) for name, module in MEASURES.items()]
