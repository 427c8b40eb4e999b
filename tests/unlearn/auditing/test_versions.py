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
from unlearn.auditing.points import point_measures, point_verdict
from unlearn.auditing.points.point_verdict import controls_on_points, failed, judge_points
from unlearn.auditing.record.record import Measurement, Reading
from unlearn.auditing.record.versions import PAGE_VERSION, RULES_VERSION, audit_version, page_version

from .test_verdict import audit_of, measurement

# The digest of `results()` for each RULES_VERSION, and of `words()` for each PAGE_VERSION.
RULES = {3: "7224281b65488cfd"}
WORDS = {3: "956206d95335647b"}


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
    for audit in audits_of_points():
        known = controls_on_points(audit, 0.95)
        found.append([dataclasses.asdict(judge_points(audit, 0.95)), known, failed(known, 5)])
    return json.dumps(rounded(found), sort_keys=True)


def audits_of_points() -> list[list[Measurement]]:
    """One audit of points for each conclusion: labels, agreement and membership of memorised and typical points."""

    def of(name: str, ours: float, retrained: tuple[float, ...], original: float, relabelled: float) -> Measurement:
        values = {
            "original": [original],
            "relabelled": [relabelled],
            "this model": [ours],
            "retrained": list(retrained),
        }
        readings = {subject: Reading.of([[value] for value in each], 0.95) for subject, each in values.items()}
        unit = "points" if name.startswith("agreement") else "%"
        return Measurement(
            name=name,
            family=name.partition("-")[0],
            title=name,
            unit=unit,
            more_left=1,
            resolution=5.0,
            source="real",
            readings=readings,
            quality=name == "labels-typical",
        )

    def audit(labels: float = 2, agreement: float = 0, typical: float = 0, rmia: float = 50) -> list[Measurement]:
        return [
            of("labels-memorised", labels, (1, 2, 3), 100, 0),
            of("labels-typical", 98, (98, 97, 98), 100, 0),
            of("agreement-memorised", agreement, (0, 1, -1), -90, -90),
            of("agreement-typical", typical, (0, 1, -1), 1, -95),
            of("rmia-typical", 51, (49, 50, 51), 52, 20),
            of("rmia-memorised", rmia, (49, 50, 51), 100, 10),
        ]

    return [
        audit(),
        audit(labels=60),
        audit(typical=-40),
        audit(rmia=80),
        audit(agreement=-30),
        audit()[:3],
        [m for m in audit() if not m.name.endswith("-memorised")],
    ]


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
    of_points = (point_verdict, point_measures)
    return "\n".join(inspect.cleandoc(module.__doc__ or "") for module in (verdict, *ours, *of_points))


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
