"""The versions that a person raises by hand follow the results, and nothing else."""

import dataclasses
import hashlib
import inspect
import json
from importlib.metadata import version

from unlearn.auditing import measures
from unlearn.auditing.judgement import verdict
from unlearn.auditing.judgement.controls import controls
from unlearn.auditing.judgement.verdict import judge
from unlearn.auditing.record.versions import PAGE_VERSION, RULES_VERSION, audit_version, page_version

from .test_verdict import audit_of, measurement

# The digest of `results()` for each RULES_VERSION, and of `words()` for each PAGE_VERSION.
RULES = {3: "1d649629e64f2dfa"}
WORDS = {3: "5a7184f2b5273f84"}


def results() -> str:
    """The verdicts and controls on stored readings, one audit for each way that the rules can go."""
    weak = measurement("accuracy-retain", 10, (84, 84, 84), quality=True)
    apart = measurement("transplant-stitched", 40, (0, 4))
    near_borders = measurement("hits-forget", 12.5, (8, 9, 11), 12.6, family="accuracy", resolution=1.0)
    audits = [
        audit_of(),
        audit_of(accuracy=40),
        audit_of(probe=95, relearn=95),
        audit_of(probe=89, relearn=88),
        audit_of(probe=94.5, resurrection=99),
        audit_of(probe=89, relearn=51),
        audit_of(resurrection=62),
        [*audit_of(), weak, apart],
        [m for m in audit_of() if m.family != "probe"],
        [near_borders, *audit_of()[1:]],
    ]
    found = [[dataclasses.asdict(judge(audit, 0.95)), controls(audit, 0.95)] for audit in audits]
    return json.dumps(rounded(found), sort_keys=True)


def rounded(value: object) -> object:
    """Numbers to six digits, since versions of SciPy may differ in the last ones."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, (list, tuple)) else value


def words() -> str:
    """The docstrings that the report prints: the rules, and the definitions of the measures."""
    ours = [measures.modules()[name] for name in measures.MEASURES.own]
    return "\n".join(inspect.cleandoc(module.__doc__ or "") for module in (verdict, *ours))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_another_verdict_on_the_same_readings_has_another_version_of_the_rules() -> None:
    assert RULES.get(RULES_VERSION) == digest(results()), (
        "The same readings lead to other results than before: raise RULES_VERSION in auditing/record/versions.py "
        "and put the new digest beside it here. If no released version wrote records with it yet, only replace the "
        "digest."
    )


def test_other_words_of_the_report_have_another_version_of_the_page() -> None:
    assert WORDS.get(PAGE_VERSION) == digest(words()), (
        "The report prints other words than before: raise PAGE_VERSION in auditing/record/versions.py and put the "
        "new digest beside it here. If no released version wrote pages with it yet, only replace the digest."
    )


def test_a_record_and_a_page_name_the_versions_that_decide_them() -> None:
    package = version("data-free-unlearning")
    assert audit_version() == f"{package}, rules {RULES_VERSION}"
    assert page_version().startswith(
        f"data-free-unlearning {package}, page {PAGE_VERSION}, rules {RULES_VERSION}, matplotlib "
    )
