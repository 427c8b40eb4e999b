import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from synth.basics.errors import HopelessError, UsageError
from unlearn.commands.main import main
from unlearn.methods.distill import LOOP
from unlearn.methods.distill_settings import DistillSettings
from unlearn.run import carry_out
from unlearn.run.carry_out import Request
from unlearn.run.folder import PROVENANCE
from unlearn.run.sweep import PLOT, RESULTS, WAY_ON, Range, plot, sweep
from unlearn.settings import LoopSettings

BASE = Request(
    method="distill", settings=DistillSettings(), loop=LOOP, shards="shards", forget=(0,), out=Path("unused")
)


def good(student: Path) -> tuple[float, float | None]:
    return 90.0, None


def quiet(line: str) -> None:
    pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """The requests of a sweep. Each is carried out by writing an empty provenance."""
    requests: list[Request] = []

    def unlearn(request: Request, say: Callable[[str], None]) -> None:
        requests.append(request)
        request.out.mkdir(parents=True)
        (request.out / PROVENANCE).write_text('{"student_step": 7, "seconds": 1.5, "ended": "finished"}')

    monkeypatch.setattr(carry_out, "unlearn", unlearn)
    return requests


def test_ranges_include_their_ends() -> None:
    assert Range.parse("entropy=0.2:2.0:10").values == pytest.approx([0.2 * n for n in range(1, 11)])
    assert Range.parse("gate=0.01,0.5").values == (0.01, 0.5)


@pytest.mark.parametrize("text", ["entropy", "entropy=", "=1,2", "entropy=1:2", "entropy=1:2:1", "entropy=a:b:3"])
def test_the_error_for_a_bad_range_shows_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match=r"write it like entropy=0.2:2.0:10"):
        Range.parse(text)


def test_the_plot_holds_both_accuracies() -> None:
    points = [(0.5, 90.0, 0.0), (0.5, 92.0, 1.0), (1.0, 95.0, 40.0), (2.0, None, None)]
    text = plot("entropy", points)
    drawing = ElementTree.fromstring(text)
    for series in ("retain", "forget"):
        assert len(drawing.findall(f".//*[@id='{series}-runs']//{{*}}use")) == 3  # one mark per run with a student
        line = drawing.find(f".//*[@id='{series}-mean']/{{*}}path")
        assert line is not None
        assert line.attrib["d"].split().count("L") == 1  # from the mean at 0.5 to the mean at 1.0
    assert plot("entropy", points) == text
    assert plot("entropy", []) != text


def test_a_run_without_a_student_is_a_result_and_a_bad_request_ends_the_sweep(
    asked: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = carry_out.unlearn

    def unlearn(request: Request, say: Callable[[str], None]) -> None:
        if request.settings.gate == 0.5:
            raise HopelessError("every sample was dropped")
        if request.settings.gate == 0.7:
            raise UsageError("there is no such class")
        works(request, say)

    monkeypatch.setattr(carry_out, "unlearn", unlearn)
    rows = sweep(Range("gate", (0.5, 0.6)), (0,), BASE, tmp_path, good, quiet)
    assert [(r.retain, r.ended) for r in rows] == [(None, "every sample was dropped"), (90.0, "finished")]
    with pytest.raises(HopelessError, match="no run left a student; the last one: every sample was dropped"):
        sweep(Range("gate", (0.5,)), (0,), BASE, tmp_path, good, quiet)
    with pytest.raises(UsageError, match="no such class"):
        sweep(Range("gate", (0.7,)), (0,), BASE, tmp_path, good, quiet)


def test_a_sweep_changes_one_setting_and_the_seed_of_its_request(asked: list[Request], tmp_path: Path) -> None:
    sweep(Range("batch-size", (16, 32)), (0, 1), BASE, tmp_path, good, quiet)
    assert [(r.settings.batch_size, r.seed, r.part) for r in asked] == [
        (size, seed, f"batch-size-{size}/seed-{seed}") for size in (16, 32) for seed in (0, 1)
    ]
    for request in asked:
        assert request.resume
        assert request.out == tmp_path / request.part
        settings = dataclasses.replace(request.settings, batch_size=BASE.settings.batch_size)
        assert request.way_on == WAY_ON
        alike = {"settings": settings, "seed": 0, "out": BASE.out, "part": "", "resume": False, "started_by": None}
        assert dataclasses.replace(request, **alike) == BASE


def test_a_setting_of_the_loop_can_be_swept(asked: list[Request], tmp_path: Path) -> None:
    base = dataclasses.replace(BASE, loop=LoopSettings())
    sweep(Range("patience", (3, 4)), (0,), base, tmp_path, good, quiet)
    assert [request.loop for request in asked] == [LoopSettings(patience=3), LoopSettings(patience=4)]


def test_a_value_that_does_not_fit_the_other_settings_is_refused_before_the_first_run(
    asked: list[Request], tmp_path: Path
) -> None:
    base = dataclasses.replace(BASE, settings=DistillSettings(hard_labels=True))
    with pytest.raises(UsageError, match="temperature 2: hard labels have no temperature"):
        sweep(Range("temperature", (1.0, 2.0)), (0,), base, tmp_path, good, quiet)
    assert asked == []


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ("seed=0,1", "--seeds 0,1"),
        ("entropi=1,2", "distill has no setting entropi to go over: choose precision, layout, gate, entropy, steps"),
        ("flip=0,1", "distill has no setting flip"),
        ("steps=100,2.5", "steps must be a whole number, not 2.5"),
        ("steps=inf", "steps must be a whole number, not inf"),
        ("gate=0.1,2", "gate must be above 0 and at most 1, not 2.0"),
        ("entropy=nan", "entropy must be above 0, not nan"),
    ],
)
def test_only_a_number_among_the_settings_can_be_swept(over: str, words: str, tiny_run: Path, tmp_path: Path) -> None:
    command = [
        "sweep",
        "--method",
        "distill",
        "--over",
        over,
        "--data",
        "digits",
        "--forget",
        "0",
        "--shards",
        str(tiny_run),
    ]
    done = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "sweep")])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr


def test_values_have_the_settings_type_and_each_has_its_own_folder(asked: list[Request], tmp_path: Path) -> None:
    for over in ("steps=1000000", "lr=0.1000001,0.1000002", "entropy=0.2:0.6:3"):
        sweep(Range.parse(over).check("distill", DistillSettings), (0,), BASE, tmp_path, good, quiet)
    assert [request.out.parent.name for request in asked] == [
        *["steps-1000000", "lr-0.1000001", "lr-0.1000002"],
        *["entropy-0.2", "entropy-0.4", "entropy-0.6"],
    ]
    assert asked[0].settings.steps == 1_000_000
    assert isinstance(asked[0].settings.steps, int)
    assert [request.settings.entropy for request in asked[3:]] == [0.2, 0.4, 0.6]


@pytest.mark.parametrize("data", ["nonsense", "mnist"])
def test_missing_test_images_are_an_error_before_the_first_run(
    data: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry_out, "unlearn", lambda request, say: pytest.fail("ran"))
    command = ["sweep", "--method", "distill", "--over", "steps=2,4", "--forget", "0", "--shards", str(tiny_run)]
    options = ["--data", data, "--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "sweep")]
    done = CliRunner().invoke(main, [*command, *options])
    assert (done.exit_code, done.stderr.count("\n")) == ({"nonsense": 2, "mnist": 1}[data], 1)
    assert data in done.stderr.lower()


def test_missing_shards_end_a_sweep(tmp_path: Path) -> None:
    command = ["sweep", "--method", "distill", "--over", "gate=0.1,0.2", "--data", "digits", "--forget", "0"]
    done = CliRunner().invoke(main, [*command, "--shards", str(tmp_path / "nope"), "--out", str(tmp_path / "sweep")])
    assert done.exit_code == 1
    assert "nope" in done.stderr


def test_a_sweep_from_the_command_line_is_not_repeated(tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path) -> None:
    own = ["--teacher", tiny_teacher_path, "--shards", tiny_run, "--kind", "finetune", "--holdout", 0.3]
    command = ["sweep", "--method", "edit", "--over", "steps=2,4", "--seeds", "0,1", "--data", "digits"]
    arguments = list(map(str, [*command, "--forget", "0", "--out", tmp_path, "--threads", 1, *own]))
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    with (tmp_path / RESULTS).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["steps"], row["seed"]) for row in rows] == [("2", "0"), ("2", "1"), ("4", "0"), ("4", "1")]
    assert all(row["retain"] and row["forget"] for row in rows)
    for place in tmp_path.glob("steps-*/seed-*"):
        judged_on = json.loads((place / PROVENANCE).read_text())["judged_on"]
        assert judged_on == {"data": "digits", "split": "test", "images": 450}
    assert ElementTree.parse(tmp_path / PLOT).getroot() is not None
    assert CliRunner().invoke(main, arguments).output.count("is complete already") == 4
    refused = CliRunner().invoke(main, [*arguments, "--bogus", "1"])
    assert (refused.exit_code, refused.output.count("\n")) == (2, 1)
    assert "No such option" in refused.output
