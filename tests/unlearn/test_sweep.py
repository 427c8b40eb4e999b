import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from synth.basics.errors import HopelessError, UsageError
from unlearn.commands.main import main
from unlearn.methods.distill import DistillSettings
from unlearn.run import distilling as tasks
from unlearn.run.folder import PROVENANCE
from unlearn.run.sweep import PLOT, RESULTS, Range, Row, plot, sweep


def test_ranges_include_their_ends() -> None:
    assert Range.parse("entropy=0.2:2.0:10").values == pytest.approx([0.2 * n for n in range(1, 11)])
    assert Range.parse("gate=0.01,0.5").values == (0.01, 0.5)


@pytest.mark.parametrize("text", ["entropy", "entropy=", "=1,2", "entropy=1:2", "entropy=1:2:1", "entropy=a:b:3"])
def test_what_is_no_range_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match=r"write it like entropy=0.2:2.0:10"):
        Range.parse(text)


def test_the_plot_holds_both_accuracies() -> None:
    rows = [Row(0.5, 0, 90.0, 0.0), Row(0.5, 1, 92.0, 1.0), Row(1.0, 0, 95.0, 40.0), Row(2.0, 0, None, None)]
    drawing = ElementTree.fromstring(plot("entropy", rows))
    assert len(drawing.findall("{*}circle")) == 6
    assert [len(line.attrib["points"].split()) for line in drawing.findall("{*}polyline")] == [2, 2]


def test_a_hopeless_value_is_a_result_and_a_bad_request_is_not(tmp_path: Path) -> None:
    def run(place: Path, value: str, seed: int) -> None:
        if value == "1":
            raise HopelessError("the gate let nothing pass")
        place.mkdir(parents=True)
        (place / PROVENANCE).write_text('{"student_step": 7, "seconds": 1.5, "ended": "finished"}')

    rows = sweep(Range("gate", (1.0, 2.0)), (0,), tmp_path, run, lambda student: (90.0, None), lambda line: None)
    assert [(r.retain, r.ended) for r in rows] == [(None, "the gate let nothing pass"), (90.0, "finished")]

    def refuse(place: Path, value: str, seed: int) -> None:
        raise UsageError("no such option")

    with pytest.raises(UsageError):
        sweep(Range("gate", (1.0,)), (0,), tmp_path, refuse, lambda student: (90.0, None), lambda line: None)


def test_a_sweep_without_a_student_is_a_failure(tmp_path: Path) -> None:
    def run(place: Path, value: str, seed: int) -> None:
        raise HopelessError("every sample was dropped")

    with pytest.raises(HopelessError, match="no run left a student; the last one: every sample was dropped"):
        sweep(Range("gate", (1.0,)), (0,), tmp_path, run, lambda student: (90.0, None), lambda line: None)


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ("seed=0,1", "--seeds 0,1"),
        ("entropi=1,2", "distill has no setting entropi: choose gate, entropy, steps"),
        ("flip=0,1", "distill has no setting flip"),
        ("steps=100,2.5", "steps takes whole numbers, not 2.5"),
        ("steps=inf", "steps takes whole numbers, not inf"),
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


def test_values_are_of_the_settings_type_and_each_has_a_folder_of_its_own(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    def run(place: Path, value: str, seed: int) -> None:
        asked.append((place.parent.name, value))
        place.mkdir(parents=True)
        (place / PROVENANCE).write_text("{}")

    for over in ("steps=1000000", "lr=0.1000001,0.1000002", "entropy=0.2:0.6:3"):
        chosen = Range.parse(over).check("distill", DistillSettings)
        sweep(chosen, (0,), tmp_path, run, lambda student: (90.0, None), lambda line: None)
    assert asked == [
        *[("steps-1000000", "1000000"), ("lr-0.1000001", "0.1000001"), ("lr-0.1000002", "0.1000002")],
        *[("entropy-0.2", "0.2"), ("entropy-0.4", "0.4"), ("entropy-0.6", "0.6")],
    ]


@pytest.mark.parametrize("data", ["nonsense", "mnist"])
def test_test_images_that_are_not_there_are_known_before_the_first_run(
    data: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "distill", lambda request, say: pytest.fail("ran"))
    command = ["sweep", "--method", "distill", "--over", "steps=2,4", "--forget", "0", "--shards", str(tiny_run)]
    options = ["--data", data, "--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "sweep")]
    done = CliRunner().invoke(main, [*command, *options])
    assert (done.exit_code, done.stderr.count("\n")) == ({"nonsense": 2, "mnist": 1}[data], 1)
    assert data in done.stderr


@pytest.mark.parametrize("given", ["two words", "one word", "environment"])
def test_a_sweep_has_no_events(given: str, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "distill", lambda request, say: pytest.fail("ran"))
    events = str(tmp_path / "events")
    options = {"two words": ["--tensorboard", events], "one word": [f"--tensorboard={events}"], "environment": []}[
        given
    ]
    if given == "environment":
        monkeypatch.setenv("UNLEARN_TENSORBOARD", events)
    command = ["sweep", "--method", "distill", "--over", "steps=2,4", "--forget", "0", "--shards", str(tiny_run)]
    done = CliRunner().invoke(main, [*command, "--data", "digits", "--out", str(tmp_path / "sweep"), *options])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "a sweep has no --tensorboard" in done.stderr


def test_shards_that_are_not_there_end_a_sweep(tmp_path: Path) -> None:
    command = ["sweep", "--method", "distill", "--over", "gate=0.1,0.2", "--data", "digits", "--forget", "0"]
    done = CliRunner().invoke(main, [*command, "--shards", str(tmp_path / "nope"), "--out", str(tmp_path / "sweep")])
    assert done.exit_code == 1
    assert "nope" in done.stderr


def test_a_sweep_from_the_command_line_and_again(tiny_teacher_path: Path, tiny_run: Path, tmp_path: Path) -> None:
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
