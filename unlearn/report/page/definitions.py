"""The rules of the verdict and the definition of each measure, as their own files state them."""

from __future__ import annotations

import inspect

from unlearn.auditing.judgement import verdict
from unlearn.auditing.measures import modules


def rules() -> str:
    return inspect.cleandoc(verdict.__doc__ or "")


def definitions() -> list[tuple[str, str]]:
    return [(name, inspect.cleandoc(module.__doc__)) for name, module in modules().items()]
