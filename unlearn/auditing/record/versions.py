"""Which rules wrote a record or a page.

The two constants are raised by hand, because only a person knows whether a change of the code changes a result: a
comment does not, and must not turn the checks of older reports into "not checked".
tests/unlearn/auditing/test_versions.py fails if a result changed and its constant did not.
"""

from __future__ import annotations

from importlib.metadata import version

# Raise it if the same readings lead to another verdict, reason or control: a change in unlearn/auditing/judgement, in
# record/intervals.py, or in a title of a measure.
RULES_VERSION = 3
# Raise it if the same record renders to another page: a change in the report's template, style, charts or words, which
# include the docstrings of the measures and of verdict.py.
PAGE_VERSION = 3

PACKAGE = "data-free-unlearning"


def audit_version() -> str:
    """The package's version and the version of the rules: what decides the words of a record, given its values."""
    return f"{version(PACKAGE)}, rules {RULES_VERSION}"


def page_version() -> str:
    """What decides the bytes of a page, given its record: page, rules, charts, templates, and the definitions of added
    measures.
    """
    from unlearn.auditing.measures import added_versions

    parts = [f"{PACKAGE} {version(PACKAGE)}", f"page {PAGE_VERSION}", f"rules {RULES_VERSION}"]
    parts += [f"{name} {version(name)}" for name in ("matplotlib", "jinja2")]
    parts += [f"{name} {number}" for name, number in added_versions().items()]
    return ", ".join(parts)
