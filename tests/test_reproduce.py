"""The table's script: its commands are sound, and it separates what the monitor chose from what the test set shows."""

import dataclasses
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner

from unlearn.commands.main import main
from unlearn.data import LabelledImages
from unlearn.run import carry_out as runs

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.parametrize("size", ["small", "medium", "full"])
def test_every_row_is_a_request_that_unlearn_takes(size: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from reproduce_rows import SIZES, method_rows
    from reproduce_table import row_job

    requests: list[runs.Request] = []
    monkeypatch.setattr(runs, "unlearn", lambda request, say: requests.append(request))
    rows = method_rows(SIZES[size])
    for row in rows:
        _, command = row_job(tmp_path / row.name, row, 1, "shards-100")
        result = CliRunner().invoke(main, list(map(str, command[1:])))
        assert result.exit_code == 0, result.output
    assert len({request.out for request in requests}) == len(rows)
    assert all(request.resume and request.loop.keep_students and request.forget == ("0",) for request in requests)
    by_name = {request.out.name: request for request in requests}
    steps = {name: by_name[name].settings.rounds * by_name[name].settings.student_steps for name in ("gkt", "ispf")}
    assert steps["gkt"] == steps["ispf"]  # so that they can be compared
    assert by_name["gkt"].settings.batch_size == by_name["ispf"].settings.batch_size


def test_a_small_table_has_the_methods_and_named_rows_come_from_all(tmp_path: Path) -> None:
    from reproduce_jobs import Data
    from reproduce_rows import SIZES
    from reproduce_table import chosen_rows

    data = Data("mnist", tmp_path, False)
    small = [row.name for row in chosen_rows(SIZES["small"], data, [])]
    assert {"gkt-published", "gkt-published-beta0", "gkt-published-entropy", "ispf", "adaptive", "emmn"} < set(small)
    assert not {"gkt", "tuned-all"} & set(small)
    assert {"gkt", "tuned-all"} < {row.name for row in chosen_rows(SIZES["medium"], data, [])}
    assert [row.name for row in chosen_rows(SIZES["small"], data, ["tuned-all"])] == ["tuned-all"]
    with pytest.raises(click.UsageError, match="no row is called gtk: choose from adaptive"):
        chosen_rows(SIZES["small"], data, ["ispf", "gtk"])


def line(step: int, retain: float, forget: float) -> dict[str, float]:
    return {"step": step, "holdout_retain": retain, "holdout_near": forget}


def test_the_choice_is_the_monitors() -> None:
    from reproduce_results import choice

    course = [line(1, 50, 0), line(2, 60, 0), line(3, 70, 5), line(4, 80, 9), line(5, 90, 0)]
    assert choice(course) == (2, 4)  # what comes after the stop has no say
    assert choice(course[:3]) == (2, None)


def result(name: str, seed: int, retain: float, **changes: Any) -> dict[str, Any]:
    chosen = {"step": 40, "retain": retain, "forget": 0.0}
    end = {"step": 120, "retain": 99.0, "forget": 60.0}
    ours = {"arch": "lenet5", "seed": seed, "row": name, "student_steps": 10, "chosen": chosen, "stopped": 80}
    return {**ours, "best": chosen, "end": end, "seconds": 12.0, "course": [chosen, end], **changes}


def test_the_table_gives_both_accuracies_beside_the_published_one() -> None:
    from reproduce_rows import SIZES, method_rows
    from reproduce_text import tables

    results = [result("gkt", 0, 95.0), result("gkt", 1, 97.0), result("gkt-tuned", 0, 98.0, best=None)]
    text = tables(results, method_rows(SIZES["small"]), published=True)
    assert "## LeNet5 with batch norm, 2 seeds" in text
    assert "| 96.00 ± 1.41 | 0.00 ± 0.00 | 96.00 ± 1.41 (40, 40) | 99.00 ± 0.00 | 60.00 ± 0.00 | 80, 80 | 12 |" in text
    assert "| never (0 of 1 seeds) |" in text
    equal = next(row for row in text.splitlines() if row.startswith("| GKT by the paper's equations") and " / " in row)
    assert (
        equal.split("|")[2].strip() == "96.00 ± 1.41 / 0.00 ± 0.00"
    )  # 1,000 student steps or fewer: the check at step 40


def test_an_audit_of_one_seed_has_the_retrained_models_of_more(tmp_path: Path) -> None:
    from reproduce_audit import Case, Study, student_job
    from reproduce_jobs import Data
    from reproduce_table import sized

    size = sized("small", seeds=1, epochs=2, per_class=(500, 500), rounds=300)
    data = Data("cifar10", tmp_path, False)
    study = Study(arch="resnet20", data=data, forget="0", size=size, references=3)
    made = [path.relative_to(tmp_path).as_posix() for path, _ in study.training_jobs(tmp_path)]
    assert made == ["seed0/teacher.safetensors", *(f"seed{seed}/retrained-0.safetensors" for seed in range(3))]
    case = Case(tmp_path / "seed0", 0, study)
    for name in ("distill", "adaptive"):
        assert "--flip" in student_job(name, case)[1]  # mirrored photographs are photographs
    place, command = student_job("gkt-tuned", case)
    assert place == tmp_path / "seed0" / "gkt-tuned-0" / "provenance.json"
    assert command[command.index("--rounds") + 1] == 300
    assert command[command.index("--shards") + 1] == case.shards(500)


def test_students_of_the_same_references_are_audited_in_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import reproduce_audit
    from reproduce_jobs import Data, Job
    from reproduce_table import sized

    jobs: list[Job] = []
    monkeypatch.setattr(reproduce_audit, "run", jobs.append)
    size = sized("small", per_class=(100, 1000))
    study = reproduce_audit.Study(
        arch="lenet5", data=Data("mnist", tmp_path, False), forget="0", size=size, references=3
    )
    case = reproduce_audit.Case(tmp_path / "seed0", 0, study)
    retrained = [tmp_path / f"seed{seed}" / "retrained-0.safetensors" for seed in range(3)]
    done = case.audit_of("ispf") / "audit.json"
    done.parent.mkdir(parents=True)
    done.touch()
    reproduce_audit.audit_students(["distill", "control", "ispf", "gkt-tuned"], case, retrained, brief=True)
    (together, first), (alone, second) = ((path, list(map(str, command))) for path, command in jobs)
    assert first[2:5] == [str(case.folder / "distill-1000-0"), str(case.folder / "gkt-tuned-0"), "--teacher"]
    assert (together, first.count("--reference")) == (case.folder / "audits-0" / "gkt-tuned-0" / "audit.json", 3)
    assert first[first.index("--out") + 1] == str(case.folder / "audits-0")
    assert second[2:4] == [str(case.folder / "control-0"), "--teacher"]
    assert str(case.retrained) not in second  # its own teacher
    assert second[second.index("--out") + 1] == str(alone.parent)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"images": 500, "arch": "lenet5"}, ["--like"]),
        (
            {
                "images": 500,
                "arch": "finetuned_network:lite0",
                "public": Path("public.safetensors"),
                "side": 96,
                "keep_layers": "60%",
            },
            ["--start-from", "--image-size", "--student-arch", "--keep-layers"],
        ),
    ],
)
def test_the_commands_of_the_points_study_are_known(kind: dict[str, Any], expected: list[str], tmp_path: Path) -> None:
    from reproduce_jobs import Data
    from reproduce_points import Study, audit_job, distill_job, shards_job, training_jobs

    from synth.commands.main import main as synth_main

    data = Data("mnist", tmp_path, False)
    sizes: dict[str, Any] = {
        "count": 100,
        "epochs": 1,
        "seeds": 2,
        "per_class": 5,
        "preset": "lean",
        "steps": 10,
        "answers": True,
        "answer_weight": 8.0,
        "public": None,
        "side": None,
        "keep_layers": None,
    }
    study = Study(out=tmp_path, data=data, **{**sizes, **kind})
    jobs = [*training_jobs(study, 0), shards_job(study, 0), distill_job(study, 0), audit_job(study, 0)]
    programs = {"unlearn": main, "synth": synth_main}
    for _, command in jobs:
        program, name, *options = map(str, command)
        found = programs[program].get_command(click.Context(programs[program]), name)
        assert found is not None
        found.make_context(name, options)  # raises UsageError for an option that the command does not have
    assert [command.count("--reference") for _, command in jobs] == [0, 0, 0, 0, 2]
    special = {"--like", "--start-from", "--image-size", "--student-arch", "--keep-layers"}
    assert special & {word for _, command in jobs for word in command} == set(expected)


def test_the_study_of_ranges_asks_for_students_and_sums_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import reproduce_ranges as study
    from reproduce_jobs import Data

    requests: list[runs.Request] = []
    monkeypatch.setattr(runs, "unlearn", lambda request, say: requests.append(request))
    sizes = study.Sizes(seeds=2, epochs=1, per_bin=1, steps=1, rounds=1, rows=study.chosen([]))
    for _, command in study.student_jobs(tmp_path, "bins", 0, Data("rotated-digits", tmp_path, False), sizes):
        result = CliRunner().invoke(main, list(map(str, command[1:])))
        assert result.exit_code == 0, result.output
    assert [request.method for request in requests] == ["distill", "distill", "gkt", "edit"]
    assert all(request.forget == ("60:90",) for request in requests)

    errors = {"mae": 1.0, "nll": 2.0, "coverage": 90.0}

    def model(prediction: float) -> dict[str, Any]:
        model = {"retain": errors, "forget": errors, "targets": [10.0, 70.0], "predictions": [10.0, prediction]}
        return {**model, "forgotten": [False, True]}

    found = {
        (head, seed): {name: model(60.0 + seed) for name in study.MODELS} for head in study.HEADS for seed in (0, 1)
    }
    assert study.distances(found, "bins", 0, "original", 2) == [0.0, 1.0]
    assert study.distances(found, "bins", 0, "retrained", 2) == [1.0]
    assert "| distill, fresh views | 1.00 ± 0.00 |" in study.summary(found, sizes)
    assert study.picture(found).startswith(b"\x89PNG")

    few = dataclasses.replace(sizes, rows=study.chosen(["early-layers"]))
    assert few.rows == ("original", "retrained", "early-layers")
    assert few.students == ["early-layers"]
    assert "fresh views" not in study.summary(found, few)
    with pytest.raises(click.UsageError, match="unknwon is none of"):
        study.chosen(["unknwon"])
    _, command = study.audit_job(tmp_path, "bins", 0, "early-layers", Data("rotated-digits", tmp_path, False), few)
    found_command = main.get_command(click.Context(main), "audit")
    assert found_command is not None
    assert command.count("--reference") == 2
    found_command.make_context("audit", list(map(str, command[2:])))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 3, 6, 1]),  # class by class, as a folder comes: a slice would have one class
        ([2, 0, 1, 0, 0, 1, 2, 1, 2], [0, 1, 2, 3]),
    ],
)
def test_a_subset_has_images_of_all_classes(labels: list[int], expected: list[int]) -> None:
    from reproduce_subset import first_images

    numbers = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    whole = LabelledImages(images=numbers, labels=torch.tensor(labels), class_names=("a", "b", "c", "d"), natural=True)
    assert first_images(whole, 4).images.flatten().tolist() == expected
