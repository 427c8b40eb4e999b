"""The audit of points: its attacks against slow references, and known models under its rules."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from synth.basics.errors import UsageError
from synth.checkpoint.card import ModelCard
from synth.checkpoint.classifier import predict
from synth.checkpoint.file import load_checkpoint, save_checkpoint
from tests.unlearn.auditing.audited_points import REFERENCES, points_request, quietly
from unlearn.auditing.judgement.verdict import NOT_EVALUATED, TOO_FAR_APART, Finding
from unlearn.auditing.points import lineup
from unlearn.auditing.points.audit_points import audit_points
from unlearn.auditing.points.lineup import group, labels_of, relabel
from unlearn.auditing.points.membership_scores import GAMMA, OFFLINE, area, chances, rmia, u_lira
from unlearn.auditing.points.point_measures import measurement
from unlearn.auditing.points.point_verdict import conclusion_on_points
from unlearn.auditing.points.points_record import VERSION, check_points_record
from unlearn.auditing.record.record import MODEL, ORIGINAL, RETRAINED
from unlearn.auditing.record.schema import POINTS_FORMAT
from unlearn.commands.main import main
from unlearn.data import DataSource, LabelledImages
from unlearn.drawn_points import write_points
from unlearn.points import load_points, put_in
from unlearn.training import TrainSettings, train_classifier


def test_rmia_is_the_share_of_images_that_an_image_stands_out_against() -> None:
    p_x, out_x, p_z, out_z = (torch.rand(n, generator=torch.Generator().manual_seed(n)) for n in (7, 7, 30, 30))
    expected = []
    for p, q in zip(p_x.tolist(), out_x.tolist(), strict=True):
        ratio = p / (0.5 * ((1 + OFFLINE) * q + 1 - OFFLINE))
        beaten = [
            ratio >= GAMMA * pz / (0.5 * ((1 + OFFLINE) * qz + 1 - OFFLINE))
            for pz, qz in zip(p_z.tolist(), out_z.tolist(), strict=True)
        ]
        expected.append(sum(beaten) / len(beaten))
    assert rmia(p_x, out_x, p_z, out_z).tolist() == pytest.approx(expected)
    assert 0 < sum(expected) < 7


def test_u_lira_counts_deviations_from_the_references() -> None:
    out = torch.tensor([[0.5, 0.9], [0.5, 0.5], [0.5, 0.1]], dtype=torch.double)
    odds = torch.tensor(0.9).double().log() - torch.tensor(0.1).double().log()
    spread = (odds.square() / 2).sqrt()  # variances 0 and odds²
    score = u_lira(torch.tensor([0.9, 0.9], dtype=torch.double), out)
    assert score.tolist() == pytest.approx([float(odds / spread)] * 2)


def test_an_area_is_that_of_the_roc_curve_with_ties() -> None:
    rng = torch.Generator().manual_seed(0)
    members, others = (torch.randint(shift, 5 + shift, (n,), generator=rng).double() for shift, n in ((1, 30), (0, 40)))
    truth = [1] * 30 + [0] * 40
    assert area(members, others) == pytest.approx(100 * roc_auc_score(truth, torch.cat([members, others])))
    assert area(torch.zeros(3), torch.zeros(9)) == 50


def test_points_are_grouped_by_what_retraining_would_change() -> None:
    labels = torch.tensor([1, 1, 1, 1])
    original = torch.tensor([1, 1, 2, 2])
    retrained = torch.tensor([[2, 1, 1, 2], [2, 1, 1, 2], [1, 2, 1, 2]])
    found = group(labels, original, retrained)
    assert found.memorised.tolist() == [True, False, False, False]
    assert found.typical.tolist() == [False, True, True, False]
    assert found.called.tolist() == [2, 1, 1, 2]


def test_chances_are_those_of_the_labels() -> None:
    logits = torch.tensor([[0.0, 0.0], [3.0, 3.0]])
    assert chances(logits, torch.tensor([0, 1])).tolist() == [0.5, 0.5]


def test_known_models_get_their_names_and_the_student_is_judged_by_the_same_rules(
    point_models: Path, tmp_path: Path
) -> None:
    record = audit_points(points_request(point_models, f"retrained-{REFERENCES}", tmp_path / "audit"), quietly)
    assert record["verdict"]["conclusion"] == "like retrained"
    known = {control["subject"]: control["conclusion"] for control in record["controls"]}
    assert known == {
        "original": "not unlearned",
        "relabelled": "output suppression only",
        **{f"retrained {n} of {REFERENCES}": "like retrained" for n in range(1, REFERENCES + 1)},
    }
    assert record["failed_controls"] == record["doubts"] == []
    memorised = [point for point in record["points"] if point["group"] == "memorised"]
    assert len(memorised) >= 8
    assert all("wrong" in point["file"] for point in memorised)
    assert all(point["called"][ORIGINAL] == [point["label"]] for point in memorised)
    by_name = {m["name"]: m["readings"] for m in record["measurements"]}
    assert by_name["rmia-memorised"][ORIGINAL]["mean"] > 95
    assert abs(by_name["rmia-memorised"][MODEL]["mean"] - by_name["rmia-memorised"][RETRAINED]["mean"]) < 5
    assert by_name["rmia-typical"][ORIGINAL]["mean"] < 60  # typical points are no secret
    assert json.loads((tmp_path / "audit" / "audit.json").read_text()) == record
    assert (tmp_path / "audit" / "pictures" / "points.png").exists()
    assert [line["split"] for line in record["ledger"]] == ["points", "test"]


def test_the_command_prints_the_verdict_on_the_original(point_models: Path, tmp_path: Path) -> None:
    models = ["--teacher", point_models / "original.safetensors"]
    models += [f"--reference={point_models / f'retrained-{number}.safetensors'}" for number in range(REFERENCES)]
    given = [
        "audit",
        point_models / "copy.safetensors",
        *models,
        "--forget-points",
        point_models / "points",
        "--data",
        "digits",
    ]
    (point_models / "copy.safetensors").write_bytes((point_models / "original.safetensors").read_bytes())
    result = CliRunner().invoke(main, list(map(str, [*given, "--out", tmp_path / "audit"])))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("What is left of 20 points? NOT UNLEARNED")
    assert "relabelled: output suppression only" in result.stdout
    page = tmp_path / "report.html"
    assert CliRunner().invoke(main, ["report", str(tmp_path / "audit"), "-o", str(page)]).exit_code == 0
    assert all(words in page.read_text() for words in ("Not unlearned", "0003-wrong.png", "data:image/png;base64"))


def test_a_record_from_elsewhere_is_refused_in_one_line(tmp_path: Path) -> None:
    for version, words in (
        (VERSION, "is not an audit of points"),
        (1, "of format version 1, not 2: run the audit again"),
    ):
        record = {"format": POINTS_FORMAT, "format_version": version, "points": [{"file": "<script>"}]}
        (tmp_path / "audit.json").write_text(json.dumps(record))
        result = CliRunner().invoke(main, ["report", str(tmp_path), "-o", str(tmp_path / "page.html")])
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert words in result.stderr


def test_without_references_and_data_nothing_is_concluded(point_models: Path, tmp_path: Path) -> None:
    record = audit_points(
        points_request(point_models, "retrained-0", tmp_path / "audit", references=(), data=None), quietly
    )
    assert record["verdict"]["conclusion"] == "undecided"
    assert {point["group"] for point in record["points"]} == {"unknown"}
    assert [line["name"].split(",")[0] for line in record["not_run"]] == ["which points are memorised", "accuracy"]


@pytest.mark.parametrize(("why", "words"), [(TOO_FAR_APART, TOO_FAR_APART), ("", "which needs two retrained models")])
def test_undecided_says_why_no_membership_was_judged(why: str, words: str) -> None:
    judged = [measurement("rmia-memorised", "RMIA", "%", 5.0, {MODEL: [[54.0]]}, 0.95)]
    findings = {"rmia-memorised": Finding("rmia-memorised", NOT_EVALUATED, why, None, None)}
    conclusion, (reason,) = conclusion_on_points(judged, findings)
    assert conclusion == "undecided"
    assert words in reason


class FewClasses(DataSource):
    """Data whose test images show two classes only."""

    def load(self, split: str, card: ModelCard | None = None) -> LabelledImages:
        data = super().load(split, card)
        return data.without(tuple(range(2, 10))) if split == "test" else data


@pytest.mark.parametrize("references", [1, REFERENCES])
def test_points_without_test_images_beside_them_are_not_attacked(
    point_models: Path, tmp_path: Path, references: int
) -> None:
    test = DataSource("digits").load("test")
    of_others = (test.labels >= 2).nonzero()[:20, 0]
    write_points(test.select(of_others), torch.zeros(20, dtype=torch.bool), tmp_path / "unseen")
    request = points_request(
        point_models,
        f"retrained-{REFERENCES}",
        tmp_path / "audit",
        points=tmp_path / "unseen",
        data=FewClasses("digits"),
    )
    request = dataclasses.replace(request, references=request.references[:references])
    record = audit_points(request, quietly)
    names = {m["name"] for m in record["measurements"]}
    assert "labels-typical" in names
    assert not {"agreement-typical", "rmia-typical", "lira-typical"} & names
    reasons = {line["name"]: line["why"] for line in record["not_run"]}
    assert reasons["agreement and membership of typical points"].startswith("no test image stands beside them")
    assert record["verdict"]["conclusion"] == "undecided"
    check_points_record(record, "the audit")


def test_the_wrongly_labelled_original_learns_all_points_however_few_fit_at_once(
    point_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = load_checkpoint(point_models / "original.safetensors")
    points = load_points(point_models / "points", original.card.input_shape, original.card.class_names)
    whole = relabel(original, points, 0)
    assert not (predict(whole, points.images).argmax(1) == labels_of(points, original)).any()
    monkeypatch.setattr(lineup, "PIXELS_AT_ONCE", 3 * 28 * 28)
    parts = relabel(original, points, 0)
    torch.testing.assert_close(predict(parts, points.images), predict(whole, points.images), atol=0.05, rtol=0.01)


def test_points_that_no_model_saw_leave_nothing_to_forget(point_models: Path, tmp_path: Path) -> None:
    test = DataSource("digits").load("test")
    folder = tmp_path / "unseen"
    write_points(test.select(slice(20)), torch.zeros(20, dtype=torch.bool), folder)
    lines: list[str] = []
    record = audit_points(
        points_request(point_models, f"retrained-{REFERENCES}", tmp_path / "audit", points=folder), lines.append
    )
    assert record["verdict"]["conclusion"] == "like retrained"
    assert "they were in no training set" in record["verdict"]["reasons"][-1]
    assert any("does not say that it was trained without these points" in line for line in lines)


@pytest.mark.parametrize(
    ("student", "conclusion", "reason"),
    [
        ("original", "not unlearned", "more left: memorised points called by their label"),
        (f"retrained-{REFERENCES}", "undecided", "which needs two retrained models, real test images, and 5 memorised"),
    ],
)
def test_of_few_points_only_the_labels_are_judged(
    point_models: Path, tmp_path: Path, student: str, conclusion: str, reason: str
) -> None:
    points = load_points(point_models / "points", (1, 28, 28), tuple("0123456789"))
    wrong = [n for n, name in enumerate(points.names) if "wrong" in name][:3]
    images = dataclasses.replace(
        DataSource("digits").load("train"), images=points.images[wrong], labels=points.labels[wrong]
    )
    write_points(images, torch.ones(3, dtype=torch.bool), tmp_path / "few")
    request = points_request(point_models, student, tmp_path / "audit", points=tmp_path / "few")
    record = audit_points(dataclasses.replace(request, student=copied(request.student, tmp_path)), quietly)
    assert record["verdict"]["conclusion"] == conclusion
    assert reason in record["verdict"]["reasons"][0]
    assert {m["name"] for m in record["measurements"]} == {"labels-memorised", "accuracy"}


def test_points_that_no_model_calls_by_their_label_are_judged_by_nothing(point_models: Path, tmp_path: Path) -> None:
    test = DataSource("digits").load("test").select(slice(6))
    wrong = dataclasses.replace(test, labels=(test.labels + 5) % 10)
    write_points(wrong, torch.ones(6, dtype=torch.bool), tmp_path / "unseen")
    request = points_request(point_models, f"retrained-{REFERENCES}", tmp_path / "audit", points=tmp_path / "unseen")
    record = audit_points(request, quietly)
    assert record["verdict"]["conclusion"] == "undecided"
    assert {point["group"] for point in record["points"]} == {"other"}
    assert (tmp_path / "audit" / "pictures" / "points.png").exists()


def copied(file: Path, folder: Path) -> Path:
    """A copy, because a student must not be the teacher's file."""
    (folder / "student.safetensors").write_bytes(file.read_bytes())
    return folder / "student.safetensors"


def test_a_model_that_saw_the_points_is_no_reference(point_models: Path, tmp_path: Path) -> None:
    copied = point_models / "other.safetensors"
    data = DataSource("digits").load("train").select(slice(300))
    points = load_points(point_models / "points", (1, 28, 28), data.class_names)
    images, facts = put_in(data, points, quietly)
    save_checkpoint(train_classifier(images, "lenet5", TrainSettings(epochs=1), width=0.5, points=facts), copied)
    with pytest.raises(UsageError, match="was trained with the points, as its own card says"):
        audit_points(points_request(point_models, "retrained-0", tmp_path / "audit", references=[copied]), quietly)


@pytest.mark.parametrize("option", ["--shards=x", "--forget=0", "--resume", "--draws=5"])
def test_an_option_without_effect_is_refused(option: str, point_models: Path, tmp_path: Path) -> None:
    given = ["audit", point_models / "retrained-0.safetensors", "--teacher", point_models / "original.safetensors"]
    given += ["--forget-points", point_models / "points", "--out", tmp_path / "audit", option]
    result = CliRunner().invoke(main, list(map(str, given)))
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "has no effect with --forget-points: leave it out" in result.stderr
