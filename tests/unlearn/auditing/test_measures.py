"""A measure is one file: what it declares reaches the schema, the report, and the list of what was left out."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synth.basics.errors import UserError
from synth.checkpoint.classifier import Classifier
from unlearn.auditing import measures
from unlearn.auditing.audit_folder import AUDIT
from unlearn.auditing.bench import Bench
from unlearn.auditing.record.schema import check_record, parse_record, read_record, schema
from unlearn.auditing.record.versions import page_version

from .subjects import SMALL

ON_FIRST_SCREEN = {
    "accuracy-retain-real",
    "accuracy-retain",
    "accuracy-forget",
    "probe-1",
    "probe-5",
    "relearn-20",
    "relearn-synthetic",
    "transplant-stitched",
    "resurrection-advantage",
}


def test_every_file_of_the_folder_is_in_the_list() -> None:
    files = {path.stem for path in Path(measures.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(measures.MEASURES.own)


def test_every_measure_declares_its_details_and_defines_itself() -> None:
    for name, module in measures.modules().items():
        assert module.DETAILS, name
        assert "Cost: " in module.__doc__, name


def test_the_first_screen_shows_the_key_measures(audited: Path) -> None:
    found = {m["name"]: m["key"] for m in read_record(audited / AUDIT)["measurements"]}
    assert {name for name, key in found.items() if key} == ON_FIRST_SCREEN & set(found)
    assert {"accuracy-forget", "relearn-20", "resurrection-advantage"} <= set(found)


def test_what_needs_real_images_is_listed_by_the_measures() -> None:
    assert (
        measures.left_out("FROM_REAL_FORGET")
        == "forget accuracy, linear probe, layer-wise linear probe, relearning, transplant"
    )
    assert measures.left_out("FROM_REAL") == "retain accuracy, what comes back from retain images"


@pytest.mark.parametrize(
    ("name", "field"),
    [("accuracy-forget", "confusion"), ("relearn-5", "curves"), ("relearn-5", "images"), ("probe-1", "images")],
)
def test_a_record_without_a_detail_that_its_measure_declares_is_refused(name: str, field: str, audited: Path) -> None:
    record = read_record(audited / AUDIT)
    measurement = next(m for m in record["measurements"] if m["name"] == name)
    del measurement["details"][field]
    with pytest.raises(UserError, match=rf"details: '{field}' is a required property"):
        parse_record(json.dumps(record).encode(), "x")


@pytest.mark.parametrize(("name", "family"), [("accuracy-forget", "other"), ("head-norm", "relearn")])
def test_a_measurement_of_another_family_than_its_names_is_refused(name: str, family: str, audited: Path) -> None:
    record = read_record(audited / AUDIT)
    next(m for m in record["measurements"] if m["name"] == name)["family"] = family
    with pytest.raises(UserError, match="is not an audit record"):
        check_record(record)


WEIGHT = '''"""Weight: how heavy is the model?"""
from unlearn.auditing.record.details import SHARES
from unlearn.auditing.record.record import Measurement

DETAILS = {"weight": {"weight": SHARES}}


def measure(bench):
    return [
        Measurement(
            name="weight",
            family="weight",
            title="weight",
            unit="",
            more_left=1,
            resolution=1.0,
            source="none",
            readings={subject: bench.reading([[1.0]]) for subject in bench.subjects},
            details={"images": 5},
        )
    ]
'''


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Put a package with one measure on the path, as pip would."""
    facts = folder / "added_package-1.2.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: added-package\nVersion: 1.2\n")
    (facts / "entry_points.txt").write_text("[data_free_unlearning.audit_measures]\nweight = added_weight\n")
    (folder / "added_weight.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "added_weight", raising=False)
    forget_measures()


def forget_measures() -> None:
    measures.modules.cache_clear()
    schema.cache_clear()


@pytest.fixture
def _forgotten_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield
    monkeypatch.undo()
    forget_measures()


@pytest.mark.usefixtures("_forgotten_afterwards")
def test_a_measure_of_another_package_runs_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_teacher: Classifier, audited: Path
) -> None:
    install(tmp_path, monkeypatch, WEIGHT)
    subjects = {"original": [tiny_teacher], "this model": [tiny_teacher]}
    found, _, _ = measures.run_measures(Bench(subjects=subjects, forget=(0,), settings=SMALL))
    weight = found[-1].to_json()
    assert weight["name"] == "weight"
    record = read_record(audited / AUDIT)
    record["measurements"].append(weight)
    check_record(record)
    weight["details"] = {}
    with pytest.raises(UserError, match="'images' is a required property"):
        check_record(record)
    assert page_version().endswith("added-package 1.2")


def test_a_reader_without_the_package_accepts_its_measurements(audited: Path) -> None:
    record = read_record(audited / AUDIT)
    norm = next(m for m in record["measurements"] if m["name"] == "head-norm")
    record["measurements"].append({**norm, "name": "weight", "family": "weight", "details": {"anything": 1}})
    check_record(record)


@pytest.mark.usefixtures("_forgotten_afterwards")
@pytest.mark.parametrize("part", ["measure", "DETAILS", "__doc__"])
def test_a_measure_of_another_package_that_lacks_a_part_is_refused_in_one_line(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, f"{WEIGHT}\n{part} = None\n")
    with pytest.raises(UserError, match=f"the audit measure 'weight' has no {part}: update its package"):
        measures.modules()
